"""How much a fitted law would vary with other runs: the bootstrap over trunks, and over the seeds of each."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from cptjax.scaling.fitting import Fit

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)  # of a 95% interval
FEW_CLUSTERS = 20  # below, a bootstrap's intervals are too narrow to be believed
_AT_ONCE = 192  # a line of progress each
_STEPS = 80


def clusters(names: Mapping[str, np.ndarray], runs: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Which runs are drawn together: the trunk of each run, and its seed within the trunk; int [runs] each.

    A run without a trunk is a trunk of its own.

    Returns:
        trunks, seeds, and what varies, in words.
    """
    trunk, seed = (names.get(name, np.full(runs, "")).astype(str) for name in ("trunk", "seed"))
    alone = np.array([f"run {n}" for n in range(runs)])
    first = np.where(trunk != "", np.char.add("trunk ", trunk), alone)
    varies = "trunks and their seeds" if (trunk != "").any() else "runs"
    return np.unique(first, return_inverse=True)[1], np.unique(seed, return_inverse=True)[1], varies


def drawn_weights(
    trunks: np.ndarray, seeds: np.ndarray, resamples: int, seed: int
) -> Float[np.ndarray, "resamples runs"]:
    """How often each run is drawn: trunks with replacement, then in each drawn trunk its seeds with replacement."""
    generator = np.random.default_rng(seed)
    count = int(trunks.max()) + 1
    of_trunk = [np.unique(seeds[trunks == one], return_inverse=True) for one in range(count)]
    weights = np.zeros((resamples, len(trunks)))
    for row in weights:
        for one in generator.integers(count, size=count):
            its, which = of_trunk[one]
            row[trunks == one] += np.bincount(generator.integers(len(its), size=len(its)), minlength=len(its))[which]
    return weights


def bootstrap(
    fit: Fit,
    weights: Float[np.ndarray, "resamples runs"],
    say: Callable[[str], None] = lambda line: None,
) -> Float[np.ndarray, "resamples parameters"]:
    """The law refitted to each resample, from the estimate: what was fitted, logarithms of scales."""
    found = []
    for first in range(0, len(weights), _AT_ONCE):
        rows = weights[first : first + _AT_ONCE]
        padded = np.concatenate(
            [rows, np.repeat(rows[-1:], _AT_ONCE - len(rows), axis=0)]
        )  # one shape, one compilation
        starts = np.broadcast_to(fit.fitted, (_AT_ONCE, len(fit.fitted)))
        found.append(fit.problem.solve(starts, _STEPS, weights=padded * fit.problem.weights)[0][: len(rows)])
        say(f"bootstrap: {min(first + _AT_ONCE, len(weights)):,} of {len(weights):,} refits")
    return np.concatenate(found)


def intervals(fit: Fit, refits: Float[np.ndarray, "resamples parameters"]) -> dict[str, list[float]]:
    """The 95% percentile interval of each free parameter, by name."""
    low, high = np.percentile(refits, PERCENTILES, axis=0)
    lows, highs = (fit.problem.law.values_from(end) for end in (low, high))
    return {
        name: [lows[name], highs[name]]
        for name, free in zip(fit.problem.law.names, fit.problem.free, strict=True)
        if free
    }
