"""Which pairs of sets may be similar enough, without comparing all: prefix and position filters, and exact verification.

With each set's shingles in one common order, rarest first, two sets of Jaccard similarity t or more share a shingle among
the first |x| - ceil(t |x|) + 1 of the larger and the first |y| - ceil(2t/(1+t) |y|) + 1 of the smaller (Bayardo et al. 2007,
"Scaling up all pairs similarity search"; Xiao et al. 2008, "Efficient similarity joins for near duplicate detection",
sections 3 and 4). Where a shingle stands bounds what two sets can share from there on. No pair is missed.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from cptjax.selection.shingles import Shingles

_BLOCK = 1 << 21  # candidates, or shingles to compare, that are in memory at a time
_ROUNDING = 1e-12  # 0.55 * 100 is a little more than 55 in floating point, and the threshold is inclusive


@dataclasses.dataclass(frozen=True)
class RankedSets:
    """Sets in the order of their sizes, as ranks of shingles, 0 the rarest.

    A shingle that one set alone holds is in no intersection: it counts in `sizes`, and is not among the ranks.

    Attributes:
        given: int64 [sets], the index of each as it was given.
        sizes: int64 [sets], ascending, all shingles counted.
        starts: int64 [sets + 1], where the ranks of each begin.
        ranks: int32 [shingles], ascending within each set.
        distinct: how many ranks there are.
    """

    given: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    ranks: np.ndarray
    distinct: int

    def __len__(self) -> int:
        return len(self.given)


@dataclasses.dataclass(frozen=True)
class Postings:
    """The shingles of every set's prefix: of which set, which rank, and how many of the set's shingles come before."""

    owner: np.ndarray
    rank: np.ndarray
    place: np.ndarray

    def take(self, which: np.ndarray) -> "Postings":
        """Those at the indices `which`."""
        return Postings(self.owner[which], self.rank[which], self.place[which])


def ranked_sets(sets: Sequence[Shingles], chosen: Sequence[int]) -> RankedSets:
    """The sets at the indices `chosen`, none of them empty."""
    given = np.array(chosen, np.int64)
    if not len(given):
        return RankedSets(given, given, np.zeros(1, np.int64), np.zeros(0, np.int32), 0)
    sizes = np.array([len(sets[i]) for i in given], np.int64)
    by_size = np.argsort(sizes, kind="stable")
    given, sizes = given[by_size], sizes[by_size]
    values = np.concatenate([sets[i] for i in given])
    # Of as much memory as the shingles themselves, and no more: most of them are in one set alone.
    ordered = np.sort(values)
    found = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    count = np.searchsorted(ordered, found, "right") - np.searchsorted(ordered, found, "left")
    del ordered
    rank_of = np.empty(len(found), np.int32)
    rank_of[np.argsort(count, kind="stable")] = np.arange(len(found), dtype=np.int32)
    place = np.searchsorted(found, values)
    np.minimum(place, len(found) - 1, out=place)
    shared = np.flatnonzero(found[place] == values) if len(found) else np.zeros(0, np.int64)
    key = np.repeat(np.arange(len(given)), sizes)[shared] * len(found) + rank_of[place[shared]]
    key.sort()
    owner, ranks = np.divmod(key, max(1, len(found)))
    return RankedSets(
        given, sizes, np.searchsorted(owner, np.arange(len(given) + 1)), ranks.astype(np.int32), len(found)
    )


def prefixes(sets: RankedSets, threshold: float) -> tuple[Postings, Postings]:
    """The postings by which a set looks for smaller ones, and the fewer by which it is found by larger ones."""
    return _postings(sets, threshold), _postings(sets, 2 * threshold / (1 + threshold))


def neighbours(postings: Postings, labels: np.ndarray) -> tuple[Postings, Postings]:
    """Of the postings of each shingle those that stand side by side and whose sets are not of one label."""
    order = np.lexsort((postings.owner, labels[postings.owner], postings.rank))
    before, after = order[:-1], order[1:]
    same = postings.rank[before] == postings.rank[after]
    apart = np.flatnonzero(same & (labels[postings.owner[before]] != labels[postings.owner[after]]))
    before, after = before[apart], after[apart]
    larger_first = postings.owner[before] > postings.owner[after]
    return postings.take(np.where(larger_first, before, after)), postings.take(np.where(larger_first, after, before))


def matches(probes: Postings, index: Postings, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs (indices of `probes`, of `index`) of one shingle whose sets are not of one label, in blocks."""
    order = np.lexsort((labels[index.owner], index.rank))
    own = probes.rank * np.int64(len(labels)) + labels[probes.owner]
    keys = index.rank[order] * np.int64(len(labels)) + labels[index.owner[order]]
    # Of a shingle's postings, those before the probe's own label and those after it.
    begins = np.stack([np.searchsorted(index.rank[order], probes.rank), np.searchsorted(keys, own, "right")], axis=1)
    ends = np.stack([np.searchsorted(keys, own), np.searchsorted(index.rank[order], probes.rank, "right")], axis=1)
    begins, lengths = begins.ravel(), (ends - begins).ravel()
    some = np.flatnonzero(lengths)
    begins, lengths = begins[some], lengths[some]
    for first, last in _blocks(lengths):
        which, at = spread(begins[first:last], lengths[first:last])
        yield some[first + which] // 2, order[at]


def candidates(sets: RankedSets, threshold: float, one: Postings, other: Postings) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of sets (larger, smaller; distinct and sorted) of matching postings that can be similar enough.

    Where they share a shingle for the first time, what follows it in either must suffice for the rest.
    """
    larger, smaller = sets.sizes[one.owner], sets.sizes[other.owner]
    rest = np.minimum(larger - one.place, smaller - other.place)
    ordered = one.owner > other.owner
    open_ = ordered & (rest >= _at_least(threshold / (1 + threshold), larger + smaller))
    key = one.owner[open_] * np.int64(len(sets)) + other.owner[open_]
    key.sort()
    key = key[np.diff(key, prepend=-1) > 0]
    return np.divmod(key, max(1, len(sets)))


def similar(sets: RankedSets, threshold: float, larger: np.ndarray, smaller: np.ndarray) -> np.ndarray:
    """Which pairs (bool) have |x & y| / |x | y| >= threshold. `larger` is sorted."""
    common = np.zeros(len(larger), np.int64)
    marked = np.zeros(sets.distinct, bool)
    lengths = np.diff(sets.starts)
    bounds = np.r_[0, np.flatnonzero(np.diff(larger)) + 1, len(larger)] if len(larger) else np.zeros(1, np.int64)
    for begin, end in itertools.pairwise(bounds):
        x, theirs = larger[begin], smaller[begin:end]
        mine = sets.ranks[sets.starts[x] : sets.starts[x + 1]]
        marked[mine] = True
        for first, last in _blocks(lengths[theirs]):
            which, at = spread(sets.starts[theirs[first:last]], lengths[theirs[first:last]])
            common[begin + first : begin + last] = np.bincount(which[marked[sets.ranks[at]]], minlength=last - first)
        marked[mine] = False
    return common / (sets.sizes[larger] + sets.sizes[smaller] - common) >= threshold


def spread(begins: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranges [begin, begin + length) end to end: of which range each element is, and the element."""
    which = np.repeat(np.arange(len(lengths)), lengths)
    return which, np.arange(len(which)) + (begins - (np.cumsum(lengths) - lengths))[which]


def _postings(sets: RankedSets, share: float) -> Postings:
    """Of each set the first |x| - ceil(share |x|) + 1 shingles; those that it alone holds come first, and match nothing."""
    held = np.diff(sets.starts)
    alone = sets.sizes - held
    length = np.clip(sets.sizes - _at_least(share, sets.sizes) + 1 - alone, 0, held)
    owner, at = spread(sets.starts[:-1], length)
    return Postings(owner, sets.ranks[at], at - sets.starts[owner] + alone[owner])


def _at_least(share: float, sizes: np.ndarray) -> np.ndarray:
    """ceil(share * sizes), never too large by rounding."""
    return np.ceil(share * sizes * (1 - _ROUNDING)).astype(np.int64)


def _blocks(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of items whose lengths sum to at most `_BLOCK`, or that hold one item."""
    total = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        before = total[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(total, before + _BLOCK, "right")))
        yield first, last
        first = last
