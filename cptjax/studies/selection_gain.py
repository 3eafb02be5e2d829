"""What selections of a finished study save over another choice of its text, with and without what they cost.

Efficiency gain (arXiv 2308.12284): 1 - (the compute at which the selected data's run reaches the baseline's last loss) / (the
baseline's compute), read off curves of annealed runs, seed by seed, in counted FLOPs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.evaluation.curves import BreakEven, Point, break_even, cost_to_reach
from cptjax.studies.equal_loss import paired_curves
from cptjax.studies.intervals import mean_interval
from cptjax.studies.selection_charges import Charge

Row = Mapping[str, Any]
AT_LEAST, AT_MOST = "at least", "at most"
BITS = "bits_per_byte_"


@dataclasses.dataclass(frozen=True)
class Gain:
    """A share of the baseline's FLOPs that is saved; below 0 it costs more.

    Attributes:
        by_seed: where the curves tell it; bounds: by seed, where they do not overlap: ("at least" or "at most", share).
        mean, low, high: over seeds, and its 95% interval, Student's; None where some seed has only a bound, or of one seed.
    """

    by_seed: Mapping[int, float]
    bounds: Mapping[int, tuple[str, float]]
    mean: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class SizeGain:
    """One arm against the baseline on one text at one size.

    Attributes:
        flops: of the baseline's largest run, at whose loss the gains are read.
        marginal: the selection not charged; charged: all of it charged to the run; shared: the run's equal part alone.
        break_even: by seed, with all of the charge; costs are the baseline's FLOPs.
    """

    arm: str
    text: str
    size: str
    params: float
    flops: float
    marginal: Gain
    charged: Gain
    shared: Gain
    break_even: Mapping[int, BreakEven]


def selection_gains(
    rows: Sequence[Row], baseline: str, arm: str, text: str, charge: Charge, baseline_charge: Charge
) -> list[SizeGain]:
    """The gains of an arm over the baseline at every size that both have, on the held-out text `text`.

    Args:
        charge, baseline_charge: of the arms' own selections.

    Raises:
        ConfigurationError: as `paired_curves`; the text is not measured; a run that is not annealed.
    """
    column = BITS + text
    if missing := [row for row in rows if column not in row]:
        measured = [name.removeprefix(BITS) for name in missing[0] if name.startswith(BITS)]
        raise ConfigurationError(f"the study did not measure {text!r}; it has {', '.join(sorted(measured))}.")
    found = []
    for size, pairs in paired_curves(rows, arm, baseline).items():
        needed, even, largest = {}, {}, {}
        for seed, (mine, theirs) in pairs.items():
            selected, known = (
                [Point(row["flops"], row[column], row["annealed"]) for row in curve] for curve in (mine, theirs)
            )
            last = max(known, key=lambda point: point.cost)
            largest[seed] = last.cost
            needed[seed] = _needed(selected, last.loss)
            even[seed] = break_even(known, selected, charge.total - baseline_charge.total)
        shares = [
            _gain(needed, largest, *own)
            for own in ((0.0, 0.0), (charge.total, baseline_charge.total), (charge.share, baseline_charge.share))
        ]
        one = next(iter(pairs.values()))[1][0]
        flops = sum(largest.values()) / len(largest)
        found.append(SizeGain(arm, text, size, one["params"], flops, *shares, even))
    return found


def _needed(selected: Sequence[Point], loss: float) -> tuple[str | None, float]:
    """FLOPs to that loss, and whether they are a bound: of the gain "at least", where fewer would have done."""
    found = cost_to_reach(selected, loss)
    if found is not None:
        return None, found
    costs = [point.cost for point in selected]
    first = min(selected, key=lambda point: point.cost)
    return (AT_LEAST, min(costs)) if first.loss < loss else (AT_MOST, max(costs))


def _gain(
    needed: Mapping[int, tuple[str | None, float]], largest: Mapping[int, float], charge: float, baseline: float
) -> Gain:
    shares = {seed: (word, 1 - (flops + charge) / (largest[seed] + baseline)) for seed, (word, flops) in needed.items()}
    exact = {seed: share for seed, (word, share) in shares.items() if word is None}
    bounds = {seed: (word, share) for seed, (word, share) in shares.items() if word is not None}
    if bounds:
        return Gain(exact, bounds, None, None, None)
    low, high = mean_interval(list(exact.values())) or (None, None)
    return Gain(exact, {}, None if low is None else sum(exact.values()) / len(exact), low, high)
