"""Compute saved by continuing, at equal held-out loss after annealing: quoted twice (PROTOCOL.md 2)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from cptjax.studies.table import Run


@dataclasses.dataclass(frozen=True)
class Saving:
    """FLOPs that a run from random weights needs for the loss of a continued one.

    Attributes:
        flops, with_trunk: the continued run's own, and with those of the trunk; both of means over seeds.
        scratch: those of runs from random weights of the same size and target at that loss, between two budgets by a straight
            line in the logarithm of FLOPs; None where the loss lies beyond the budgets that were run.
        beyond: "more" or "fewer": on which side, where it does.
    """

    arm: str
    size: str
    budget: int
    flops: float
    with_trunk: float
    scratch: float | None
    beyond: str | None

    def describe(self) -> str:
        """In one line."""
        where = f"{self.arm} at {self.size} after {self.budget:,} tokens"
        if self.scratch is None:
            return f"{where}: from random weights it takes {self.beyond} FLOPs than any budget that was run"
        marginal, whole = (1 - spent / self.scratch for spent in (self.flops, self.with_trunk))
        return f"{where}: FLOPs saved {marginal:+.0%}, and {whole:+.0%} with all of the trunk's"


def savings(points: Mapping[tuple, Sequence[Run]]) -> list[Saving]:
    """Of every annealed point that continues another arm, where its size and target were run from random weights too."""
    means = {key: _mean(runs) for key, runs in points.items() if all(run.row["annealed"] for run in runs)}
    found = []
    for (arm, size, prior, budget), (flops, whole, metric, target) in means.items():
        if prior is None:
            continue
        scratch = sorted(
            (its[0], its[2]) for key, its in means.items() if key[1] == size and key[2] is None and its[3] == target
        )
        if len(scratch) >= 2:
            found.append(Saving(arm, size, budget, flops, whole, *_at(metric, scratch)))
    return found


def _mean(runs: Sequence[Run]) -> tuple[float, float, float, str]:
    columns = ("flops", "flops_with_trunk", "bits_per_byte")
    return (*(float(np.mean([run.row[name] for run in runs])) for name in columns), runs[0].row["target"])


def _at(metric: float, scratch: Sequence[tuple[float, float]]) -> tuple[float | None, str | None]:
    """The FLOPs at which the line through (FLOPs, metric), by growing FLOPs, first comes down to `metric`."""
    if metric > scratch[0][1]:
        return None, "fewer"
    for (low, above), (high, below) in zip(scratch, scratch[1:], strict=False):
        if below <= metric <= above and above > below:
            share = (above - metric) / (above - below)
            return math.exp(math.log(low) + share * math.log(high / low)), None
    return None, "more"
