"""The schedule of rows over sources: each source within one row of its exact share after every row, at random access.

W_i(t) is what source i should have had after t rows: w_i t for a share w_i, and the sum of its shares so far where they change
(`Shares`). It is given its k-th row (k from 1) in some slot s of its window, from the last a with W_i(a) <= k - 1 to the slot
before the first t with W_i(t) >= k. Then after t rows it has had more than W_i(t) - 1 and fewer than W_i(t) + 1 of them, at every
t, for any number of sources. Such "quota" windows are Tijdeman's chairman assignment (Discrete Mathematics 32, 1980) and the Pfair
tasks of Baruah, Cohen, Plaxton and Varvel (Algorithmica 15, 1996); on one processor, serving the earliest deadline first
meets them all.

Serving from slot 0 is sequential. For random access time is cut into blocks of K slots, and the number of rows x_i(T)
each source has had at a border T is computed from T alone: `floor(W_i(T)) + e_i`, where the set S of sources with e_i
= 1 must let both sides work (for all t > T and a < T, with [u]+ = max(0, u)):

    forward    sum_i [floor(W_i(t)) - x_i]+ <= t - T      what must still be served by t fits in between
    backward   sum_i [x_i - ceil(W_i(a))]+ <= T - a       what cannot have been served before a fits in between

Backward conditions bound |S & Q(a)|, Q(a) = the sources whose current window opened at a or later: nested sets, so a
laminar matroid. Forward ones ask for enough of each prefix of S in the order of deadlines. The matroid greedy in that
order has, of all feasible sets, the most in every prefix; a feasible set exists (the fluid schedule gives each source
exactly W_i(t), and the constraint matrix of windows is totally unimodular); so the greedy one satisfies both. Inside a
block the rows x_i(T) + 1 .. x_i(T + K) are then jobs with windows cut to the block, and earliest deadline first
serves them all.
"""

import collections
import dataclasses
import heapq
import threading
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from cptjax.data.shares import Shares, integer_parts
from cptjax.errors import ConfigurationError

_BLOCKS_KEPT = 4


@dataclasses.dataclass(frozen=True)
class _Block:
    source: np.ndarray  # int32 [K], which source each slot serves
    occurrence: np.ndarray  # int64 [K], the 0-based index of that row among the source's rows
    before: tuple[int, ...]  # rows each source has had when the block begins


class Quota:
    """The schedule for `Shares`, or for integer shares (source i has `parts[i] / sum(parts)` of the rows)."""

    def __init__(self, shares: Shares | Sequence[int]):
        self.shares = shares if isinstance(shares, Shares) else Shares((tuple(shares),))
        self.sources = len(self.shares.parts[0])
        least = min(map(min, self.shares.parts))
        needed = max(4096, -(-4 * self.shares.whole // least))  # so that every source is served in every block
        self.block = 1 << (needed - 1).bit_length()
        self._blocks: collections.OrderedDict[int, _Block] = collections.OrderedDict()
        self._lock = threading.Lock()

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Slots `start .. stop - 1`: which source each serves (int32) and its how-manieth row, from 0 (int64)."""
        sources, occurrences = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        at = start
        while at < stop:
            begin = at - at % self.block
            upto = min(stop, begin + self.block)
            block = self._at(begin)
            sources.append(block.source[at - begin : upto - begin])
            occurrences.append(block.occurrence[at - begin : upto - begin])
            at = upto
        return np.concatenate(sources), np.concatenate(occurrences)

    def counts(self, t: int) -> np.ndarray:
        """Rows each source has had after the first `t` slots, int64 [sources]; they add up to t."""
        begin = t - t % self.block
        if t == begin:
            return np.array(border(self.shares, t), np.int64)
        block = self._at(begin)
        within = np.bincount(block.source[: t - begin], minlength=self.sources)
        return np.array(block.before, np.int64) + within

    def _at(self, begin: int) -> _Block:
        with self._lock:
            if begin not in self._blocks:
                self._blocks[begin] = _serve(self.shares, begin, self.block)
                while len(self._blocks) > _BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(begin)
            return self._blocks[begin]


def quota(weights: Mapping[str, object] | Sequence[object]) -> Quota:
    """The schedule for `weights` (numbers above 0, of any scale, exact as Fractions; floats as they are written).

    Shares with a common denominator up to 2**40 are exact, others are rounded to multiples of 2**-40.

    Raises:
        ConfigurationError: no source, a weight that is not a number above 0, a share below 2**-20.
    """
    named = dict(weights) if isinstance(weights, Mapping) else {f"source {i}": w for i, w in enumerate(weights)}
    return Quota(integer_parts({name: _exact(name, weight) for name, weight in named.items()}))


def border(shares: Shares, t: int) -> tuple[int, ...]:
    """Rows each source has had after `t` slots, so that all rows before and after can be served in their windows."""
    owed = [divmod(n, shares.whole) for n in shares.at(t)]
    floors = [floor for floor, _ in owed]
    open_ = [i for i, (_, rest) in enumerate(owed) if rest]  # sources in the midst of a window
    size = t - sum(floors)
    if not size:
        return tuple(floors)
    opened = {i: shares.last_at_most(i, floors[i]) for i in open_}
    deadline = {i: shares.first_at_least(i, floors[i] + 1) for i in open_}
    caps = _backward_caps(shares, t, opened)
    chosen: list[int] = []
    inside = dict.fromkeys(caps, 0)
    for i in sorted(open_, key=lambda i: (deadline[i], i)):
        levels = [level for level in caps if opened[i] >= level]
        if all(inside[level] < caps[level] for level in levels):
            chosen.append(i)
            for level in levels:
                inside[level] += 1
        if len(chosen) == size:
            break
    if len(chosen) != size:
        raise AssertionError(f"no feasible border at {t} for {shares}: a fault in the schedule, please report it")
    return tuple(floor + (i in chosen) for i, floor in enumerate(floors))


def _backward_caps(shares: Shares, t: int, opened: Mapping[int, int]) -> dict[int, int]:
    """How many of the sources whose window opened at `level` or later may be in S, for each such level.

    That is the least `t - a - sum_i [floor(W_i(t)) - ceil(W_i(a))]+` over the a down to the next lower level (exclusive),
    which share one Q(a). No a before the first opening binds: there Q(a) is everything.
    """
    whole = shares.whole
    first = min(opened.values())
    room = np.arange(t - first, 0, -1, dtype=np.int64)  # t - a; at most about 1 / (smallest share) of them
    pieces = shares.between(first, t)
    ends = [start for start, _ in pieces[1:]] + [t]
    for i, at_t in enumerate(shares.at(t)):
        rest, later = at_t % whole, 0  # W is taken relative to t, so that the products fit in int64
        for (start, parts), end in zip(reversed(pieces), reversed(ends), strict=True):
            since = later + parts[i] * np.arange(end - start, 0, -1, dtype=np.int64)  # W(t) - W(a)
            room[start - first : end - first] -= np.maximum(0, (since - rest) // whole)  # = floor(W(t)) - ceil(W(a))
            later = int(since[0])
    levels = sorted(set(opened.values()))
    since = [first, *(level + 1 for level in levels[:-1])]
    return {level: int(room[a0 - first : level - first + 1].min()) for a0, level in zip(since, levels, strict=True)}


def _serve(shares: Shares, begin: int, length: int) -> _Block:
    """Earliest deadline first over the jobs between two borders."""
    whole, sources = shares.whole, len(shares.parts[0])
    before, after = border(shares, begin), border(shares, begin + length)
    releases, keys = [], []
    for i, at_begin in enumerate(shares.at(begin)):
        # Windows relative to the block, so that int64 is enough: with floor(W(T)) = f and remainder r, row f + j opens
        # where W has grown by (j - 1) whole - r, and closes where it has by j whole - r.
        floor, rest = divmod(at_begin, whole)
        j = np.arange(before[i] - floor + 1, after[i] - floor + 1, dtype=np.int64)
        opens, closes = _slots(shares, i, begin, length, (j - 1) * whole - rest, j * whole - rest)
        releases.append(np.maximum(0, opens))
        keys.append(np.minimum(length, closes) * sources + i)  # earliest deadline, then lowest source
    release, key = np.concatenate(releases), np.concatenate(keys)
    order = np.argsort(release, kind="stable")
    waiting = iter(key[order].tolist())
    push, pop, push_and_pop = heapq.heappush, heapq.heappop, heapq.heappushpop
    ready: list[int] = []
    served: list[int] = []
    for released in np.bincount(release, minlength=length).tolist():  # a block may be millions of slots: one call each
        if released == 1:
            served.append(push_and_pop(ready, next(waiting)))
        elif not released:
            served.append(pop(ready))
        else:
            for _ in range(released):
                push(ready, next(waiting))
            served.append(pop(ready))
    deadline, source = np.divmod(np.array(served, np.int64), sources)
    if late := np.flatnonzero(deadline <= np.arange(length)).tolist():
        raise AssertionError(
            f"slot {begin + late[0]} misses a deadline for {shares}: a fault in the schedule, please report it"
        )
    source = source.astype(np.int32)
    occurrence = np.empty(length, np.int64)
    counts = np.array(after) - before
    by_source = np.argsort(source.astype(np.uint16) if sources <= 1 << 16 else source, kind="stable")  # 16 bits: radix
    occurrence[by_source] = np.arange(length) + np.repeat(np.array(before) - (np.cumsum(counts) - counts), counts)
    return _Block(source, occurrence, before)


def _slots(
    shares: Shares, source: int, begin: int, length: int, opening: np.ndarray, closing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The last slots from `begin` on at which W has grown by at most `opening`, the first at which by at least `closing`."""
    pieces = shares.between(begin, begin + length)
    starts = np.array([start - begin for start, _ in pieces], np.int64)
    slopes = np.array([parts[source] for _, parts in pieces], np.int64)
    grown = np.concatenate([[0], np.cumsum(np.diff(starts) * slopes[:-1])])
    last = np.maximum(0, np.searchsorted(grown, opening, "right") - 1)
    first = np.maximum(0, np.searchsorted(grown, closing, "left") - 1)
    opens = starts[last] + (opening - grown[last]) // slopes[last]
    closes = starts[first] - (grown[first] - closing) // slopes[first]
    return opens, closes


def _exact(name: str, weight: object) -> Fraction:
    try:
        exact = Fraction(str(weight)) if isinstance(weight, float) else Fraction(weight)
    except (ValueError, TypeError, OverflowError):
        exact = Fraction(0)
    if exact <= 0:
        raise ConfigurationError(f"the weight of {name!r} is {weight!r}; weights are numbers above 0.")
    return exact
