"""What two runs have lost of an old domain where they are equally good on the target: forgetting at matched loss.

At equal tokens the run that learns more may forget more because it has moved further; at an equal target loss the two are held
against each other for what both bought. A curve is points of annealed runs, each its own cooldown (PROTOCOL.md 3). Between two of
them either loss is linear in the logarithm of the cost, as in evaluation/curves.py, so that the old loss is linear in the target's;
the first place that is as low is meant; outside of a curve nothing is said.
"""

import dataclasses
import math
from collections.abc import Sequence

from cptjax.errors import ConfigurationError
from cptjax.evaluation.curves import Point, first_reach


@dataclasses.dataclass(frozen=True)
class TwoLosses:
    """What a run cost (tokens, steps or FLOPs; above 0), and its losses on the target and on an old domain, in one unit.

    Attributes:
        annealed: by its lineage.
    """

    cost: float
    target: float
    old: float
    annealed: bool = True

    @property
    def point(self) -> Point:
        """The same on the target alone."""
        return Point(self.cost, self.target, self.annealed)


@dataclasses.dataclass(frozen=True)
class Matched:
    """The old domain's loss on either curve where both have the target loss `at`."""

    at: float
    first: float
    other: float

    @property
    def difference(self) -> float:
        """How much more of the old domain the other curve has lost than the first; what the base knew cancels."""
        return self.other - self.first


def old_loss_at(curve: Sequence[TwoLosses], target: float) -> float | None:
    """The old domain's loss where the curve first has the target loss; None outside of the curve.

    Raises:
        ConfigurationError: as `curves.first_reach`; an old loss that is no finite number.
    """
    points = sorted(curve, key=lambda point: point.cost)
    if bad := [point.old for point in points if not math.isfinite(point.old)]:
        raise ConfigurationError(f"a curve holds a loss of {bad[0]} on the old domain.")
    found = first_reach([point.point for point in points], target)
    if found is None:
        return None
    before, after = points[found.before].old, points[found.after].old
    return before + found.share * (after - before)


def at_equal_target(first: Sequence[TwoLosses], other: Sequence[TwoLosses], target: float) -> Matched | None:
    """Both curves' old losses at one target loss; None where one of them does not reach it, or was there before its first point."""
    found = [old_loss_at(curve, target) for curve in (first, other)]
    return None if None in found else Matched(target, *found)


def shared_range(curves: Sequence[Sequence[TwoLosses]]) -> tuple[float, float] | None:
    """(lowest, highest) target loss that every curve reaches, within all of their points; None where there is none.

    Raises:
        ConfigurationError: as `curves.first_reach`.
    """
    firsts = [min(curve, key=lambda point: point.cost).target for curve in curves if curve]
    lowest = [min(point.target for point in curve) for curve in curves if curve]
    for curve in curves:
        first_reach([point.point for point in curve], math.inf)  # refuses what is no curve
    low, high = max(lowest), min(firsts)
    return (low, high) if low <= high else None
