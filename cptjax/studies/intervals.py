"""The interval of a difference between two arms: what varies are trunks, seeds and documents (PROTOCOL.md 10).

The difference of the arms' means has two parts of variance. Between runs: initialisation and data order, and the trunk where
both arms continue the same ones, whose runs are then compared in pairs. Between documents: a bootstrap over the held-out
documents, the same for all runs. Their sum is the interval's variance, and Student's t its quantile: percentiles of a two-level
bootstrap of three seeds are far too narrow (they leave out that the deviation itself is guessed from three numbers).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from cptjax.evaluation.bootstrap import resampled_sums

COVERAGE = 0.95


@dataclasses.dataclass(frozen=True)
class Measured:
    """One arm's runs at one point, on documents that all runs share.

    Attributes:
        nats: float64 [runs, documents]; units: float64 [documents], tokens or bytes times ln 2.
        trunks: what each run continues, by name; two runs of one trunk are not independent. A run from random weights is its own.
    """

    nats: np.ndarray
    units: np.ndarray
    trunks: tuple[str, ...]

    @property
    def values(self) -> Float[np.ndarray, " runs"]:
        """The metric of each run."""
        return self.nats.sum(axis=1) / self.units.sum()


@dataclasses.dataclass(frozen=True)
class Difference:
    """`better` minus `worse`, with its interval.

    Attributes:
        low, high: infinite where nothing tells how seeds vary.
        deviation: of the difference between two single runs, by seeds alone; None with one seed.
        documents: the variance that documents leave; held_out: how many there are.
        clusters: independent runs (or trunks) of the smaller arm.
        paired: whether runs were compared within trunks that both arms continue.
    """

    value: float
    low: float
    high: float
    error: float
    freedom: float
    deviation: float | None
    documents: float
    held_out: int
    clusters: int
    paired: bool

    @property
    def rejects(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def difference(better: Measured, worse: Measured, seed: int = 0, resamples: int = 2000) -> Difference:
    """The difference of the arms' mean metrics, with its 95% interval."""
    first, second = (_by_trunk(arm) for arm in (better, worse))
    paired = set(first) == set(second) and len(first) > 1
    value = float(np.mean(better.values) - np.mean(worse.values))
    documents = _documents_variance(better, worse, seed, resamples)
    if paired:
        each = np.array([first[trunk] - second[trunk] for trunk in first])
        value = float(each.mean())
        parts = [(float(each.var(ddof=1)) / len(each), len(each) - 1)]
        deviation: float | None = float(each.std(ddof=1))
    else:
        arms = [np.array(list(arm.values())) for arm in (first, second)]
        parts, deviation = _unpaired(arms)
    clusters, held_out = min(len(first), len(second)), better.nats.shape[1]
    if deviation is None:
        return Difference(value, -math.inf, math.inf, math.inf, 0.0, None, documents, held_out, clusters, paired)
    parts.append((documents, held_out - 1))
    error, freedom = _combined(parts)
    reach = error * float(student.ppf((1 + COVERAGE) / 2, freedom))
    return Difference(
        value, value - reach, value + reach, error, freedom, deviation, documents, held_out, clusters, paired
    )


def _by_trunk(arm: Measured) -> dict[str, float]:
    """The mean metric of each trunk's runs."""
    values = arm.values
    return {
        trunk: float(np.mean([value for value, its in zip(values, arm.trunks, strict=True) if its == trunk]))
        for trunk in dict.fromkeys(arm.trunks)
    }


def _unpaired(arms: Sequence[np.ndarray]) -> tuple[list[tuple[float, int]], float | None]:
    """Each arm's (variance of its mean, degrees of freedom), and the deviation of a single difference.

    An arm of one run takes the other's variance; where both have one, nobody knows it.
    """
    variances = [float(arm.var(ddof=1)) if len(arm) > 1 else None for arm in arms]
    known = [variance for variance in variances if variance is not None]
    if not known:
        return [], None
    variances = [known[0] if variance is None else variance for variance in variances]
    freedoms = [max(len(arm) - 1, 0) or max(len(other) - 1 for other in arms) for arm in arms]
    parts = [(variance / len(arm), f) for variance, arm, f in zip(variances, arms, freedoms, strict=True)]
    return parts, math.sqrt(sum(variances))


def _combined(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Standard error and Satterthwaite's degrees of freedom of a sum of independent variances."""
    whole = sum(variance for variance, _ in parts)
    below = sum(variance**2 / freedom for variance, freedom in parts if freedom > 0)
    return math.sqrt(whole), whole**2 / below if below > 0 else 1.0


def _documents_variance(better: Measured, worse: Measured, seed: int, resamples: int) -> float:
    """Of the difference of the means, drawn over documents in pairs: what is hard for both cancels."""
    values = np.stack([better.nats.mean(axis=0), worse.nats.mean(axis=0), better.units])
    if values.shape[1] < 2:
        return 0.0
    sums = resampled_sums(values, seed, resamples)
    return float(np.var((sums[:, 0] - sums[:, 1]) / sums[:, 2], ddof=1))


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval of the mean of independent values (one of each trunk), Student's; None of one, which tells of no other."""
    if len(values) < 2:
        return None
    each = np.array(values, float)
    reach = float(each.std(ddof=1)) / math.sqrt(len(each)) * float(student.ppf((1 + COVERAGE) / 2, len(each) - 1))
    return float(each.mean()) - reach, float(each.mean()) + reach
