"""Texts of the judged corpus itself that stand for what is not of a domain: some of them are of it, unnoticed.

A classifier that learned that such a text is "not the domain" remembers it. So at most half of the corpus is drawn, and what a
classifier was trained on is scored by another, whose negatives are the other half of the draw (cross-fitting).
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from cptjax.errors import ConfigurationError

Model = TypeVar("Model")


def drawn_units(units: int, most: int, seed: int) -> Bool[np.ndarray, " units"]:
    """So many units of a corpus at random, at most half of them."""
    drawn = np.zeros(units, bool)
    drawn[np.random.default_rng(seed).permutation(units)[: min(most, units // 2)]] = True
    return drawn


def places(group: Int[np.ndarray, " texts"], seed: int) -> Float[np.ndarray, " texts"]:
    """A random number in [0, 1) for each group of texts, which its members share."""
    place = np.empty(len(group))
    place[np.random.default_rng(seed).permutation(len(group))] = np.arange(len(group)) / len(group)
    return place[group]


def scored_by_the_other_half(
    fit: Callable[[np.ndarray], Model],
    score: Callable[[Model, np.ndarray], np.ndarray],
    positive: Bool[np.ndarray, " texts"],
    train: Bool[np.ndarray, " texts"],
    group: Int[np.ndarray, " texts"],
    seed: int,
) -> Float[np.ndarray, " texts"]:
    """The probability of each negative that trains, from a model of the positives and the other half of them; NaN elsewhere.

    Args:
        fit: which texts (bool) -> a model trained on them. score: it, and which texts (bool) -> their probabilities.
        train: which texts train.
        group: of near-duplicates, the index of its first member; whole groups are in one half.

    Raises:
        ConfigurationError: the negatives that train are copies of one.
    """
    negatives = train & ~positive
    place = places(group, seed + 1)
    first = place < np.median(place[negatives]) if negatives.any() else negatives
    if not (negatives & first).any():
        raise ConfigurationError("the texts drawn from the corpus are copies of too few: name OTHERS.")
    found = np.full(len(positive), np.nan)
    for half in (negatives & first, negatives & ~first):
        found[half] = score(fit(train & ~half), half)
    return found
