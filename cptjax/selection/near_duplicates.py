"""Which sets of shingles are near-duplicates: every pair whose Jaccard similarity reaches a threshold, and none other.

No hashing scheme that may miss a pair: candidates come from prefix filtering (prefix_filter.py), and each is verified.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from cptjax.errors import ConfigurationError
from cptjax.selection.prefix_filter import (
    RankedSets,
    candidates,
    matches,
    neighbours,
    prefixes,
    ranked_sets,
    similar,
    spread,
)
from cptjax.selection.shingles import Shingles


def near_duplicate_pairs(sets: Sequence[Shingles], threshold: float) -> Int[np.ndarray, "pairs 2"]:
    """Every pair i < j of sets with |A & B| / |A | B| >= threshold, sorted. Empty sets are in no pair.

    Raises:
        ConfigurationError: a threshold outside (0, 1].
    """
    first_equal, ranked = _distinct(sets, threshold)
    probes, index = prefixes(ranked, threshold)
    found = [np.zeros(0, np.int64)]
    for probe, at in matches(probes, index, labels=np.arange(len(ranked))):
        larger, smaller = candidates(ranked, threshold, probes.take(probe), index.take(at))
        found.append((larger * len(ranked) + smaller)[similar(ranked, threshold, larger, smaller)])
    larger, smaller = np.divmod(np.unique(np.concatenate(found)), max(1, len(ranked)))
    return _with_equals(first_equal, ranked.given[larger], ranked.given[smaller])


def groups(sets: Sequence[Shingles], threshold: float) -> Int[np.ndarray, " sets"]:
    """The connected components over those pairs: for each set the smallest index in its component.

    Sets that are joined already are not compared, so thousands of texts made from one template cost little.

    Raises:
        ConfigurationError: a threshold outside (0, 1].
    """
    first_equal, ranked = _distinct(sets, threshold)
    joined = _Components(ranked, threshold)
    probes, index = prefixes(ranked, threshold)
    # First those that stand side by side in a shingle's postings, while that joins many: a large component falls into
    # place by few comparisons. Then all that two components share, which finds whatever is left.
    while joined.compare(*candidates(ranked, threshold, *neighbours(index, joined.labels))) > len(ranked) // 100:
        pass
    for probe, at in matches(probes, index, joined.labels):
        joined.compare(*candidates(ranked, threshold, probes.take(probe), index.take(at)))
    smallest = np.full(len(ranked), len(sets))
    np.minimum.at(smallest, joined.labels, ranked.given)
    label = np.arange(len(sets))
    label[ranked.given] = smallest[joined.labels]
    return label[first_equal]


class _Components:
    """The components of the sets compared so far; `labels` (int64 [sets]) says which sets are in one."""

    def __init__(self, sets: RankedSets, threshold: float):
        self._sets, self._threshold = sets, threshold
        # The pairs of a set may be spread over blocks: those of the last set that failed are not compared again.
        self._last, self._apart = -1, np.zeros(0, np.int64)
        self.labels = np.arange(len(sets))

    def compare(self, larger: np.ndarray, smaller: np.ndarray) -> int:
        """Joins those of the pairs (sorted) that are similar and not in one component; by how many components that is fewer."""
        open_ = (self.labels[larger] != self.labels[smaller]) & ~(
            (larger == self._last) & np.isin(smaller, self._apart)
        )
        larger, smaller = larger[open_], smaller[open_]
        if not len(larger):
            return 0
        near = similar(self._sets, self._threshold, larger, smaller)
        failed = smaller[(larger == larger[-1]) & ~near]
        self._apart = np.append(self._apart, failed) if larger[-1] == self._last else failed
        self._last = larger[-1]
        parent, joined = self.labels.tolist(), 0
        for x, y in zip(larger[near].tolist(), smaller[near].tolist(), strict=True):
            x, y = _root(parent, x), _root(parent, y)
            parent[max(x, y)] = min(x, y)
            joined += x != y
        self.labels = _flattened(np.array(parent))
        return joined


def _distinct(sets: Sequence[Shingles], threshold: float) -> tuple[np.ndarray, RankedSets]:
    """For each set the index of the first that equals it (an empty one equals none), and those first ones, ranked."""
    if not 0 < threshold <= 1:
        raise ConfigurationError(f"the similarity of near-duplicates is {threshold}; it lies above 0 and is at most 1.")
    first_with: dict[bytes, int] = {}
    first_equal = np.arange(len(sets))
    for i, each in enumerate(sets):
        if len(each):
            first_equal[i] = first_with.setdefault(hashlib.blake2b(each.tobytes(), digest_size=16).digest(), i)
    return first_equal, ranked_sets(sets, list(first_with.values()))


def _with_equals(first_equal: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pairs of distinct sets as pairs of all sets that equal these, and the pairs of equal sets; [pairs, 2], sorted."""
    order = np.argsort(first_equal, kind="stable")
    begins, ends = (np.searchsorted(first_equal[order], np.arange(len(order)), side) for side in ("left", "right"))
    which, left = spread(begins[one], (ends - begins)[one])
    pair, right = spread(begins[other[which]], (ends - begins)[other[which]])
    at = np.arange(len(order))
    equal, later = spread(at + 1, ends[first_equal[order]] - at - 1)
    pairs = np.stack([np.r_[left[pair], equal], np.r_[right, later]], axis=1)
    pairs = np.sort(order[pairs], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def _flattened(parent: np.ndarray) -> np.ndarray:
    """Every index's root."""
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return parent
