"""What selections of a finished study save over another choice of its text, with and without what they cost.

Efficiency gain (arXiv 2308.12284): 1 - (the compute at which the selected data's run reaches the baseline's last loss) / (the
baseline's compute), read off curves of annealed runs, seed by seed, in counted FLOPs. A selected run that never gets there is read
the other way round: at its own lowest loss, which the baseline has reached before.
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
        flops: of the baseline's largest run.
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
        told, even, largest = {}, {}, []
        for seed, (mine, theirs) in pairs.items():
            selected, known = (
                [Point(row["flops"], row[column], row["annealed"]) for row in curve] for curve in (mine, theirs)
            )
            told[seed] = _at_equal_loss(known, selected)
            even[seed] = break_even(known, selected, charge.total - baseline_charge.total)
            largest.append(max(point.cost for point in known))
        shares = [
            _gain(told, *own)
            for own in ((0.0, 0.0), (charge.total, baseline_charge.total), (charge.share, baseline_charge.share))
        ]
        one = next(iter(pairs.values()))[1][0]
        flops = sum(largest) / len(largest)
        found.append(SizeGain(arm, text, size, one["params"], flops, *shares, even))
    return found


@dataclasses.dataclass(frozen=True)
class _Told:
    """FLOPs of both at one loss; word: what the gain is of that, where one of them is only known to have taken less."""

    baseline: float
    selected: float
    word: str | None = None


def _at_equal_loss(baseline: Sequence[Point], selected: Sequence[Point]) -> _Told:
    """At the baseline's last loss; or, where the selected data never gets there, at the selected data's lowest."""
    last = max(baseline, key=lambda point: point.cost)
    found = cost_to_reach(selected, last.loss)
    if found is not None:
        return _Told(last.cost, found)
    first = min(selected, key=lambda point: point.cost)
    if first.loss < last.loss:
        return _Told(last.cost, first.cost, AT_LEAST)
    lowest = min(selected, key=lambda point: (point.loss, point.cost))
    before = cost_to_reach(baseline, lowest.loss)
    if before is not None:
        return _Told(before, lowest.cost)
    return _Told(min(point.cost for point in baseline), lowest.cost, AT_MOST)


def _gain(told: Mapping[int, _Told], charge: float, baseline: float) -> Gain:
    shares = {seed: 1 - (each.selected + charge) / (each.baseline + baseline) for seed, each in told.items()}
    exact = {seed: share for seed, share in shares.items() if told[seed].word is None}
    bounds = {seed: (told[seed].word, share) for seed, share in shares.items() if told[seed].word is not None}
    if bounds:
        return Gain(exact, bounds, None, None, None)
    low, high = mean_interval(list(exact.values())) or (None, None)
    return Gain(exact, {}, None if low is None else sum(exact.values()) / len(exact), low, high)
