"""Compute saved by continuing, at equal held-out loss after annealing: quoted twice (PROTOCOL.md 2)."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from cptjax.evaluation.curves import Point, cost_to_reach
from cptjax.studies.table import Run


@dataclasses.dataclass(frozen=True)
class Saving:
    """FLOPs that a run from random weights needs for the loss of a continued one.

    Attributes:
        flops, with_trunk: the continued run's own, and with those of the trunk; both of means over seeds.
        over: the arm from random weights. scratch: its FLOPs at that loss (evaluation/curves.py), None where the loss lies
            beyond the budgets that were run.
        beyond: "more" or "fewer": on which side, where it does.
    """

    arm: str
    size: str
    budget: int
    flops: float
    with_trunk: float
    over: str
    scratch: float | None
    beyond: str | None

    def describe(self) -> str:
        """In one line."""
        where = f"{self.arm} at {self.size} after {self.budget:,} tokens"
        if self.scratch is None:
            return f"{where}: `{self.over}` takes {self.beyond} FLOPs to that loss than any budget that was run"
        marginal, whole = (1 - spent / self.scratch for spent in (self.flops, self.with_trunk))
        return f"{where}, over `{self.over}`: FLOPs saved {marginal:+.0%}, and {whole:+.0%} with all of the trunk's"


def savings(points: Mapping[tuple, Sequence[Run]]) -> list[Saving]:
    """Of every annealed point that continues another arm, against each arm from random weights of its size and target."""
    means = {key: _mean(runs) for key, runs in points.items() if all(run.row["annealed"] for run in runs)}
    curves: dict[tuple[str, str, str], list[Point]] = {}
    for (arm, size, prior, _), (flops, _, metric, target) in means.items():
        if prior is None:
            curves.setdefault((arm, size, target), []).append(Point(flops, metric))
    found = []
    for (arm, size, prior, budget), (flops, whole, metric, target) in means.items():
        if prior is None:
            continue
        for (other, its_size, its_target), curve in curves.items():
            if (its_size, its_target) == (size, target) and len(curve) >= 2:
                needed = cost_to_reach(curve, metric)
                beyond = None if needed is not None else "fewer" if metric > _first(curve).loss else "more"
                found.append(Saving(arm, size, budget, flops, whole, other, needed, beyond))
    return found


def _first(curve: Sequence[Point]) -> Point:
    return min(curve, key=lambda point: point.cost)


def _mean(runs: Sequence[Run]) -> tuple[float, float, float, str]:
    columns = ("flops", "flops_with_trunk", "bits_per_byte")
    return (*(float(np.mean([run.row[name] for run in runs])) for name in columns), runs[0].row["target"])
