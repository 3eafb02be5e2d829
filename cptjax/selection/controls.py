"""Selections that know nothing of what a text says: what any other has to beat."""

import numpy as np
from jaxtyping import Bool, Float, Int

from cptjax.errors import ConfigurationError

_APART = 1  # a draw matched to `random_scores` of the same seed must not be that draw


def random_scores(units: int, seed: int) -> Float[np.ndarray, " units"]:
    """A number in [0, 1) for each unit; those with the smallest are a random selection of any budget."""
    return np.random.default_rng(seed).random(units)


def length_matched(
    sizes: Int[np.ndarray, " units"], chosen: Bool[np.ndarray, " units"], seed: int, strata: int = 20
) -> Bool[np.ndarray, " units"]:
    """A random selection with the lengths of another: from units of like length as many as were chosen of them.

    Whatever prefers short texts or long ones differs from a random selection by that alone; this control does not. Every
    unit may be drawn, those that were chosen too.

    Args:
        sizes: in tokens.
        chosen: the selection to match.
        strata: into how many parts of about as many units the corpus is cut by length (units of one length are not parted).

    Raises:
        ConfigurationError: fewer strata than one.
    """
    if strata < 1:
        raise ConfigurationError(f"length_matched with {strata} strata: there is at least one.")
    ordered = np.sort(sizes)
    longest = (
        np.unique(ordered[[max(0, len(ordered) * (i + 1) // strata - 1) for i in range(strata)]])
        if len(ordered)
        else []
    )
    stratum = np.searchsorted(longest, sizes)
    wanted = np.bincount(stratum[chosen], minlength=len(longest))
    drawn = np.random.default_rng([seed, _APART]).random(len(sizes))
    order = np.lexsort((drawn, stratum))
    first = np.searchsorted(stratum[order], stratum[order])
    kept = np.zeros(len(sizes), bool)
    kept[order] = np.arange(len(sizes)) - first < wanted[stratum[order]]
    return kept
