"""Two arms of a finished study at equal loss on their target, size by size: what either cost, and what either forgot.

Read from the study's table (conclusion/runs.jsonl), whose rows are the runs' ledgers. Runs of one size and seed continue one trunk:
their curves over the budgets are held against each other, and what varies between seeds is between trunks. Costs are the FLOPs of
the continued run alone (marginal, PROTOCOL.md 2); losses are bits per byte.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.evaluation.curves import Point, specialized_efficiency
from cptjax.evaluation.matched import TwoLosses, at_equal_target, shared_range
from cptjax.studies.intervals import mean_interval

Row = Mapping[str, Any]
ABOVE, BELOW, OPEN, ONE_TRUNK = "above", "below", "open", "one trunk"


@dataclasses.dataclass(frozen=True)
class CostRatios:
    """The cost of the general arm over that of the specialised one at one size, both readings of arXiv 2501.02068.

    Attributes:
        params, params_non_embedding: of the size.
        to_general_best: by seed, to the general arm's lowest loss; at_best: each at its own lowest.
        bounds: by seed, where the specialised arm's budgets do not hold that loss, what is known: ("at least" or "at most", ratio).
        low, high: 95% interval of the geometric mean of `to_general_best` over trunks, Student's; None of one trunk, or where
            some seed has only a bound.
        against_null: of that interval: "above" 1/p, "below" it, "open", or "one trunk"; None where some seed has only a bound.
    """

    size: str
    params: float
    params_non_embedding: float
    to_general_best: Mapping[int, float]
    at_best: Mapping[int, float]
    bounds: Mapping[int, tuple[str, float]]
    low: float | None
    high: float | None
    against_null: str | None


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """Forgetting at one loss on the target that all curves of a size reach; bits per byte, the mean over seeds.

    Attributes:
        specialised, general: of the old domain, above the trunk's loss; difference: the former less the latter.
        low, high: 95% interval of the difference over trunks, in pairs, Student's; None of one trunk.
    """

    at: float
    specialised: float
    general: float
    difference: float
    low: float | None
    high: float | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class SizeForgotten:
    """Forgetting at one size: at the lowest, middle and highest loss that all its curves reach.

    Attributes:
        levels: none where there is no such loss; then `ranges` says which losses either arm has, (lowest, highest).
    """

    size: str
    levels: Sequence[Forgotten]
    ranges: Mapping[str, tuple[float, float]]


def cost_ratios(rows: Sequence[Row], specialised: str, general: str, domain_share: float) -> list[CostRatios]:
    """The ratios of every size.

    Raises:
        ConfigurationError: an arm without runs, one arm twice, arms that share no size and seed, several priors of an arm, several
            targets or trunks of one size and seed, a run that is not annealed, a share outside (0, 1].
    """
    found = []
    for size, pairs in paired_curves(rows, specialised, general).items():
        exact, best, bounds = {}, {}, {}
        for seed, (mine, theirs) in pairs.items():
            curves = [
                [Point(row["flops"], row["bits_per_byte"], row["annealed"]) for row in arm] for arm in (theirs, mine)
            ]
            ratio = specialized_efficiency(*curves, domain_share)
            best[seed] = ratio.at_best
            if ratio.to_general_best is None:
                bounds[seed] = _bound(*curves)
            else:
                exact[seed] = ratio.to_general_best
        one = next(iter(pairs.values()))[0][0]
        interval = None if bounds else mean_interval([math.log(each) for each in exact.values()])
        low, high = (None, None) if interval is None else map(math.exp, interval)
        word = None if bounds else _word(low, high, 1 / domain_share)
        counts = one["params"], one["params_non_embedding"]
        found.append(CostRatios(size, *counts, exact, best, bounds, low, high, word))
    return found


def forgetting(rows: Sequence[Row], specialised: str, general: str, old: str) -> list[SizeForgotten]:
    """Forgetting of the source `old` at matched loss on the target, at every size.

    Raises:
        ConfigurationError: as `cost_ratios`; a run without its trunk in the table; the source is not measured, or is the target.
    """
    column = f"bits_per_byte_{old}"
    if missing := [row for row in rows if column not in row]:
        measured = sorted(
            name.removeprefix("bits_per_byte_") for name in missing[0] if name.startswith("bits_per_byte_")
        )
        raise ConfigurationError(f"the study did not measure {old!r}; it has {', '.join(measured)}.")
    trunks = {"/".join(row["run"].split("/")[-2:]): row for row in rows}
    found = []
    for size, pairs in paired_curves(rows, specialised, general).items():
        curves = {seed: [[_two(row, column) for row in arm] for arm in both] for seed, both in pairs.items()}
        if any(row["target"] == old for both in pairs.values() for row in both[0]):
            raise ConfigurationError(
                f"FORGOTTEN = {old!r} is the arms' target: equally good on it, both have forgotten as much of it.\n"
                "  Name a source that neither arm reads."
            )
        shared = shared_range([curve for both in curves.values() for curve in both])
        known = {seed: _trunk_of(both[0][0], trunks)[column] for seed, both in pairs.items()}
        levels = [] if shared is None else sorted({shared[0], (shared[0] + shared[1]) / 2, shared[1]}, reverse=True)
        targets = {
            name: [point.target for both in curves.values() for point in both[place]]
            for place, name in enumerate((specialised, general))
        }
        ranges = {name: (min(its), max(its)) for name, its in targets.items()}
        found.append(SizeForgotten(size, [_forgotten(curves, known, level) for level in levels], ranges))
    return found


def _forgotten(curves: Mapping[int, Sequence], known: Mapping[int, float], level: float) -> Forgotten:
    pairs = {seed: at_equal_target(general, mine, level) for seed, (mine, general) in curves.items()}
    of = [[getattr(pair, name) - known[seed] for seed, pair in pairs.items()] for name in ("other", "first")]
    each = [pair.difference for pair in pairs.values()]
    low, high = mean_interval(each) or (None, None)
    means = [sum(values) / len(values) for values in (*of, each)]
    return Forgotten(level, *means, low, high, len(each))


def paired_curves(rows: Sequence[Row], *arms: str) -> dict[str, dict[int, tuple[list[Row], list[Row]]]]:
    """By size and seed the runs of both arms, which have the same beginning; only of what both have.

    Raises:
        ConfigurationError: one arm twice; an arm without runs, or that begins after several budgets; arms that share no size and
            seed, are measured on different targets, or continue different trunks.
    """
    curves: list[dict[tuple[str, int], list[Row]]] = []
    if len(set(arms)) < len(arms):
        raise ConfigurationError(f"both arms are {arms[0]!r}: name two that differ.")
    for arm in arms:
        mine = [row for row in rows if row["arm"] == arm]
        if not mine:
            there = ", ".join(dict.fromkeys(repr(row["arm"]) for row in rows))
            raise ConfigurationError(f"the study has no runs of the arm {arm!r}; it has {there}.")
        if len(priors := {row["budget_prior"] for row in mine}) > 1:
            raise ConfigurationError(
                f"the arm {arm!r} begins after {sorted(priors, key=str)} tokens: one curve has one beginning."
            )
        by: dict[tuple[str, int], list[Row]] = {}
        for row in mine:
            by.setdefault((row["size"], row["seed"]), []).append(row)
        curves.append(by)
    found: dict[str, dict[int, tuple[list[Row], list[Row]]]] = {}
    for (size, seed), mine in curves[0].items():
        if (theirs := curves[1].get((size, seed))) is not None:
            _refuse_unlike([*mine, *theirs])
            found.setdefault(size, {})[seed] = (mine, theirs)
    if not found:
        raise ConfigurationError(f"the arms {arms[0]!r} and {arms[1]!r} have no size and seed in common.")
    return found


def _refuse_unlike(rows: Sequence[Row]) -> None:
    """Refuses runs of one size and seed that are measured on different targets, or continue different trunks."""
    for column, what in (("target", "are measured on different targets"), ("trunk", "continue different trunks")):
        first = rows[0]
        for row in rows:
            if row[column] != first[column]:
                raise ConfigurationError(
                    f"runs of the arms at {row['size']}, seed {row['seed']}, {what}: {first['arm']!r} {first[column]!r},"
                    f" {row['arm']!r} {row[column]!r}. What they cost and forgot cannot be compared."
                )


def _two(row: Row, column: str) -> TwoLosses:
    return TwoLosses(row["flops"], row["bits_per_byte"], row[column], row["annealed"])


def _trunk_of(row: Row, trunks: Mapping[str, Row]) -> Row:
    if row["trunk"] not in trunks:
        raise ConfigurationError(
            f"the run {row['run']} continues {row['trunk'] or 'nothing'!r}, which is not in the study's table: nobody knows what"
            " it could before."
        )
    return trunks[row["trunk"]]


def _bound(general: Sequence[Point], specialised: Sequence[Point]) -> tuple[str, float]:
    """What is known of the ratio to the general arm's lowest loss where the specialised arm's budgets do not hold that loss."""
    lowest = min(general, key=lambda point: (point.loss, point.cost))
    costs = [point.cost for point in specialised]
    first = min(specialised, key=lambda point: point.cost)
    return ("at least", lowest.cost / min(costs)) if first.loss < lowest.loss else ("at most", lowest.cost / max(costs))


def _word(low: float | None, high: float | None, null: float) -> str:
    if low is None or high is None:
        return ONE_TRUNK
    return ABOVE if low > null else BELOW if high < null else OPEN
