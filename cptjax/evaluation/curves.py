"""What one loss curve saves over another: at equal loss, the tokens, steps or FLOPs that each took.

A curve is points of annealed runs: each its own cooldown, charged to it (PROTOCOL.md 3). Between two of them the loss is taken
as linear in the logarithm of the cost; outside of them nothing is said.
"""

import dataclasses
import math
from collections.abc import Sequence

from cptjax.errors import ConfigurationError

_STEPS = 64  # between two points of a curve, in which a crossing is looked for


@dataclasses.dataclass(frozen=True)
class Point:
    """What a run cost (tokens, steps or FLOPs; above 0) and the loss it reached. annealed: by its lineage."""

    cost: float
    loss: float
    annealed: bool = True


@dataclasses.dataclass(frozen=True)
class Reach:
    """Where a curve, in the order of its costs, first is as low as a loss: `share` of the way from point `before` to `after`."""

    before: int
    after: int
    share: float


def first_reach(curve: Sequence[Point], loss: float) -> Reach | None:
    """Where the curve first is as low as `loss`; None where it never is, or was before its first point.

    Raises:
        ConfigurationError: no points, one that is not annealed or no number, or two of the same cost.
    """
    points = _in_order(curve)
    if points[0].loss <= loss:  # how much less would have done is not known
        return Reach(0, 0, 0.0) if points[0].loss == loss else None
    for place, (before, after) in enumerate(zip(points, points[1:], strict=False)):
        if after.loss <= loss:
            return Reach(place, place + 1, (before.loss - loss) / (before.loss - after.loss))
    return None


def cost_to_reach(curve: Sequence[Point], loss: float) -> float | None:
    """The smallest cost at which the curve is as low as `loss`; None where it never is, or was before its first point.

    Raises:
        ConfigurationError: as `first_reach`.
    """
    found = first_reach(curve, loss)
    if found is None:
        return None
    points = _in_order(curve)
    before, after = points[found.before].cost, points[found.after].cost
    return (
        before if before == after else math.exp(math.log(before) + found.share * (math.log(after) - math.log(before)))
    )


def transferred_tokens(scratch: Sequence[Point], continued: Point) -> float | None:
    """D_scratch - D_continued at equal loss: what the base was worth in tokens (arXiv 2407.02118: "effectively transferred
    data"; after Hernandez et al., arXiv 2102.01293). Costs are tokens; None outside the scratch curve."""
    _in_order([continued])
    needed = cost_to_reach(scratch, continued.loss)
    return None if needed is None else needed - continued.cost


@dataclasses.dataclass(frozen=True)
class FlopsSaved:
    """Shares of the compute of starting afresh that continuing saves at equal loss; below 0 it costs more.

    Attributes:
        marginal: (C_scratch - C_continued) / C_scratch, the source model for free (arXiv 2407.02118).
        with_source: the same with the source model's own training added to C_continued (PROTOCOL.md 2).
    """

    marginal: float
    with_source: float


def flops_saved(scratch: Sequence[Point], continued: Point, source_flops: float) -> FlopsSaved | None:
    """What continuing saved; costs are FLOPs. None outside the scratch curve.

    Raises:
        ConfigurationError: as `cost_to_reach`.
    """
    _in_order([continued])
    needed = cost_to_reach(scratch, continued.loss)
    if needed is None:
        return None
    return FlopsSaved(1 - continued.cost / needed, 1 - (continued.cost + source_flops) / needed)


def efficiency_gain(baseline: Sequence[Point], selected: Sequence[Point]) -> float | None:
    """1 - (steps of the selected data's run to the baseline's last loss) / (the baseline's steps) (arXiv 2308.12284).

    None where the run never gets there, or was there before its first point.

    Raises:
        ConfigurationError: as `cost_to_reach`.
    """
    last = _in_order(baseline)[-1]
    needed = cost_to_reach(selected, last.loss)
    return None if needed is None else 1 - needed / last.cost


@dataclasses.dataclass(frozen=True)
class BreakEven:
    """Where the selected data's curve has saved what the selection cost.

    Attributes:
        cost: of the baseline's run, from which on, up to its largest, the charge is saved; None where it is not by then.
        bound: whether it may be less: the baseline has no smaller run, or the selected data's smallest is already as good.
        saved: of the baseline's largest run, at its loss; None where the selected data's curve never gets there. At least so much
            where its smallest run is already as good.
    """

    cost: float | None
    bound: bool
    saved: float | None


def break_even(baseline: Sequence[Point], selected: Sequence[Point], charge: float) -> BreakEven:
    """The least cost of the baseline from which on the selected data saves at least `charge`, in the curves' own unit.

    Where the selected data's smallest run is already as good as the baseline, that run's cost is what it took. Nothing is
    extrapolated: beyond the baseline's runs nothing is said.

    Raises:
        ConfigurationError: as `cost_to_reach`.
    """
    points, first = _in_order(baseline), _in_order(selected)[0]

    def saved(cost: float) -> float | None:
        loss = _loss_at(points, cost)
        needed = first.cost if first.loss <= loss else cost_to_reach(selected, loss)
        return None if needed is None else cost - needed

    def pays(cost: float) -> bool:
        found = saved(cost)
        return found is not None and found >= charge

    costs = [points[0].cost]
    for before, after in zip(points, points[1:], strict=False):
        ratio = after.cost / before.cost
        costs += [before.cost * ratio ** (step / _STEPS) for step in range(1, _STEPS)] + [after.cost]
    last = saved(costs[-1])
    if not pays(costs[-1]):
        return BreakEven(None, False, last)
    place = len(costs) - 1
    while place and pays(costs[place - 1]):
        place -= 1
    if not place:
        return BreakEven(costs[0], True, last)
    low, high = costs[place - 1], costs[place]
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if pays(middle) else (middle, high)
    return BreakEven(high, first.loss <= _loss_at(points, high), last)


def _loss_at(points: Sequence[Point], cost: float) -> float:
    """Of a curve in order, between its first and last cost."""
    for before, after in zip(points, points[1:], strict=False):
        if before.cost <= cost <= after.cost:
            share = math.log(cost / before.cost) / math.log(after.cost / before.cost)
            return before.loss + share * (after.loss - before.loss)
    return points[0].loss if cost <= points[0].cost else points[-1].loss


@dataclasses.dataclass(frozen=True)
class SpecializedEfficiency:
    """How much more compute a general run takes than one on the domain alone (SGER, arXiv 2501.02068; its exact definition is
    not published, so here are the two readings).

    Attributes:
        at_best: cost of the general run at its lowest loss over that of the specialised run at its own.
        to_general_best: cost of the general run at its lowest loss over what the specialised run takes to that loss; None
            where it never gets there, or was there before its first point.
        null: 1 / p, what to expect where only the domain's share p of the general text teaches the domain. Only what is
            above it speaks for specialising; what is below is what the other text has taught.
    """

    at_best: float
    to_general_best: float | None
    null: float


def specialized_efficiency(
    general: Sequence[Point], specialized: Sequence[Point], domain_share: float
) -> SpecializedEfficiency:
    """Both readings of the specialised-to-general efficiency ratio, and their null.

    Args:
        general, specialized: losses on the domain, over the cost of either run.
        domain_share: p, of the general text.

    Raises:
        ConfigurationError: a share outside (0, 1]; as `cost_to_reach`.
    """
    if not 0 < domain_share <= 1:
        raise ConfigurationError(
            f"the domain's share of the general text is {domain_share}; it is above 0 and at most 1."
        )
    lowest, own = (
        min(_in_order(curve), key=lambda point: (point.loss, point.cost)) for curve in (general, specialized)
    )
    needed = cost_to_reach(specialized, lowest.loss)
    return SpecializedEfficiency(
        lowest.cost / own.cost, None if needed is None else lowest.cost / needed, 1 / domain_share
    )


def _in_order(curve: Sequence[Point]) -> list[Point]:
    points = sorted(curve, key=lambda point: point.cost)
    if not points:
        raise ConfigurationError("a curve has no points.")
    for point in points:
        if not point.annealed:
            raise ConfigurationError(
                f"the point at cost {point.cost:g} is not annealed: its loss would have fallen further without more data.\n"
                "  Give it a cooldown of its own, and charge it to the point."
            )
        if not (point.cost > 0 and math.isfinite(point.cost) and math.isfinite(point.loss)):
            raise ConfigurationError(f"a curve holds a cost of {point.cost} and a loss of {point.loss}.")
    if len({point.cost for point in points}) < len(points):
        raise ConfigurationError("a curve has two points of the same cost; average the seeds first.")
    return points
