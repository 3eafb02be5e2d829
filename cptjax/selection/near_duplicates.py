"""Which sets of shingles are near-duplicates: every pair whose Jaccard similarity reaches a threshold, and none other.

No hashing scheme that may miss a pair: prefix filtering (Bayardo et al. 2007, "Scaling up all pairs similarity search";
Xiao et al. 2008, PPJoin). With each set's shingles in one common order, rarest first, two sets of similarity t or more
share a shingle among the first |A| - ceil(t |A|) + 1 of each. Candidates found so are verified exactly.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from cptjax.errors import ConfigurationError
from cptjax.selection.shingles import Shingles

_BLOCK = 1 << 20  # candidate pairs held at a time
_ROUNDING = 1e-9  # 0.7 * 10 is a little more than 7 in floating point, and the threshold is inclusive


def near_duplicate_pairs(sets: Sequence[Shingles], threshold: float) -> Int[np.ndarray, "pairs 2"]:
    """Every pair i < j of sets with |A & B| / |A | B| >= threshold, sorted. Empty sets are in no pair.

    Raises:
        ConfigurationError: a threshold outside (0, 1].
    """
    ranked = _ranked(sets, threshold)
    found = {
        (int(i), int(j))
        for block in _candidates(ranked, threshold)
        for i, j in block
        if _similar(ranked[i], ranked[j], threshold)
    }
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def groups(sets: Sequence[Shingles], threshold: float) -> Int[np.ndarray, " sets"]:
    """The connected components over those pairs: for each set the smallest index in its component.

    A pair inside a component that is joined already is not verified, so thousands of copies cost little.
    """
    first_of: dict[bytes, int] = {}
    parent = np.arange(len(sets))
    for i, each in enumerate(sets):  # equal sets are one to begin with
        if len(each):
            parent[i] = first_of.setdefault(each.tobytes(), i)
    distinct = np.flatnonzero((parent == np.arange(len(sets))) & np.array([len(each) > 0 for each in sets], bool))
    ranked = _ranked([sets[i] for i in distinct], threshold)
    for block in _candidates(ranked, threshold):
        roots = _flattened(parent)
        pairs = distinct[block]
        open_pairs = roots[pairs[:, 0]] != roots[pairs[:, 1]]
        for (a, b), (i, j) in zip(block[open_pairs], pairs[open_pairs], strict=True):
            root_i, root_j = _root(parent, i), _root(parent, j)
            if root_i != root_j and _similar(ranked[a], ranked[b], threshold):
                parent[max(root_i, root_j)] = min(root_i, root_j)
    return _flattened(parent)


def _ranked(sets: Sequence[Shingles], threshold: float) -> list[np.ndarray]:
    """Each set as the ranks of its shingles, ascending: rank 0 is the rarest shingle of all."""
    if not 0 < threshold <= 1:
        raise ConfigurationError(f"the similarity of near-duplicates is {threshold}; it lies above 0 and is at most 1.")
    if not sets:
        return []
    sizes = np.array([len(each) for each in sets])
    _, place, count = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    order = np.argsort(count, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    owner = np.repeat(np.arange(len(sets)), sizes)
    ranks = rank[place]
    ranks = ranks[np.lexsort((ranks, owner))]
    return np.split(ranks, np.cumsum(sizes)[:-1])


def _candidates(ranked: Sequence[np.ndarray], threshold: float) -> Iterator[np.ndarray]:
    """Blocks of pairs [n, 2] (i < j) that share a shingle of their prefixes and whose sizes allow the similarity."""
    sizes = np.array([len(each) for each in ranked], np.int64)
    if not sizes.sum():
        return
    prefixes = [each[: len(each) - math.ceil(threshold * len(each) - _ROUNDING) + 1] for each in ranked]
    shingle = np.concatenate(prefixes)
    owner = np.repeat(np.arange(len(ranked)), [len(each) for each in prefixes])
    order = np.lexsort((owner, shingle))
    shingle, owner = shingle[order], owner[order]
    begins = np.flatnonzero(np.r_[True, shingle[1:] != shingle[:-1]])
    lengths = np.diff(np.r_[begins, len(shingle)])
    for length in np.unique(lengths[lengths > 1]):
        sharing = np.unique(owner[begins[lengths == length][:, None] + np.arange(length)], axis=0)  # [shingles, length]
        for block in _pairs_within(sharing):
            small, large = np.minimum(*sizes[block].T), np.maximum(*sizes[block].T)
            block = block[small >= threshold * large - _ROUNDING]
            if len(block):
                yield np.unique(block, axis=0)


def _pairs_within(sharing: np.ndarray) -> Iterator[np.ndarray]:
    """All pairs of each row of [rows, length] ascending indices, in blocks of about `_BLOCK`."""
    rows, length = sharing.shape
    for i in range(length - 1):
        step = max(1, _BLOCK // (length - 1 - i))
        if rows * length * (length - 1) // 2 <= _BLOCK:  # few enough to be taken at once
            first, second = np.triu_indices(length, 1)
            yield np.stack([sharing[:, first].ravel(), sharing[:, second].ravel()], axis=1)
            return
        for begin in range(0, rows, step):
            part = sharing[begin : begin + step]
            others = part[:, i + 1 :]
            yield np.stack([np.repeat(part[:, i], others.shape[1]), others.ravel()], axis=1)


def _similar(a: np.ndarray, b: np.ndarray, threshold: float) -> bool:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared >= threshold * (len(a) + len(b) - shared) - _ROUNDING


def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return int(i)


def _flattened(parent: np.ndarray) -> np.ndarray:
    """Every index's root."""
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return parent
