"""The schedule of rows over sources: each source within one row of its exact share after every row, at random access.

Source i with share w_i is given its k-th row (k from 1) in some slot s with `floor((k-1)/w_i) <= s < ceil(k/w_i)`.
Then after t rows it has had more than `w_i t - 1` and fewer than `w_i t + 1` of them, at every t, for any number of
sources. Such "quota" windows are Tijdeman's chairman assignment (Discrete Mathematics 32, 1980) and the Pfair tasks
of Baruah, Cohen, Plaxton and Varvel (Algorithmica 15, 1996); on one processor, serving the earliest deadline first
meets them all.

Serving from slot 0 is sequential. For random access time is cut into blocks of K slots, and the number of rows x_i(T)
each source has had at a border T is computed from T alone: `floor(w_i T) + e_i`, where the set S of sources with e_i
= 1 must let both sides work (for all t > T and a < T, with [u]+ = max(0, u)):

    forward    sum_i [floor(w_i t) - x_i]+ <= t - T      what must still be served by t fits in between
    backward   sum_i [x_i - ceil(w_i a)]+ <= T - a       what cannot have been served before a fits in between

Backward conditions bound |S & Q(a)|, Q(a) = the sources whose current window opened at a or later: nested sets, so a
laminar matroid. Forward ones ask for enough of each prefix of S in the order of deadlines. The matroid greedy in that
order has, of all feasible sets, the most in every prefix; a feasible set exists (the fluid schedule gives each source
exactly w_i t, and the constraint matrix of windows is totally unimodular); so the greedy one satisfies both. Inside a
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

from cptjax.errors import ConfigurationError

_DENOMINATOR = 2**40  # shares are exact up to this common denominator, and rounded to it beyond
_SMALLEST = Fraction(1, 2**20)
_BLOCKS_KEPT = 4


@dataclasses.dataclass(frozen=True)
class _Block:
    source: np.ndarray  # int32 [K], which source each slot serves
    occurrence: np.ndarray  # int64 [K], the 0-based index of that row among the source's rows
    before: tuple[int, ...]  # rows each source has had when the block begins


class Quota:
    """The schedule for integer shares `parts` (each above 0; source i has `parts[i] / sum(parts)` of the rows)."""

    def __init__(self, parts: Sequence[int]):
        self.parts = tuple(parts)
        self.whole = sum(parts)
        needed = max(4096, -(-4 * self.whole // min(parts)))  # so that every source is served in every block
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
            return np.array(border(self.parts, t), np.int64)
        block = self._at(begin)
        within = np.bincount(block.source[: t - begin], minlength=len(self.parts))
        return np.array(block.before, np.int64) + within

    def _at(self, begin: int) -> _Block:
        with self._lock:
            if begin not in self._blocks:
                self._blocks[begin] = _serve(self.parts, begin, self.block)
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


def integer_parts(shares: Mapping[str, Fraction]) -> list[int]:
    """Integers in proportion to `shares`: exactly if a common denominator up to 2**40 exists, else 2**40 parts."""
    if not shares:
        raise ConfigurationError("a blend needs at least one source with a weight above 0.")
    total = sum(shares.values())
    exact = {name: weight / total for name, weight in shares.items()}
    for name, share in exact.items():
        if share < _SMALLEST:
            raise ConfigurationError(
                f"the share of {name!r} is {float(share):.3g}; the smallest possible is 2**-20, about 1e-6.\n"
                f"  Raise its weight ({float(shares[name]):.3g} of {float(total):.6g}), or leave the source out."
            )
    denominator = 1
    for share in exact.values():
        denominator = denominator * share.denominator // np.gcd(denominator, share.denominator, dtype=object)
        if denominator > _DENOMINATOR:
            break
    if denominator <= _DENOMINATOR:
        return [int(share * denominator) for share in exact.values()]
    parts = [int(share * _DENOMINATOR) for share in exact.values()]
    # The largest remainders get what rounding down left over.
    by_remainder = sorted(range(len(parts)), key=lambda i: parts[i] - list(exact.values())[i] * _DENOMINATOR)
    for i in by_remainder[: _DENOMINATOR - sum(parts)]:
        parts[i] += 1
    return parts


def border(parts: Sequence[int], t: int) -> tuple[int, ...]:
    """Rows each source has had after `t` slots, so that all rows before and after can be served in their windows."""
    whole = sum(parts)
    floors = [n * t // whole for n in parts]
    open_ = [i for i, n in enumerate(parts) if n * t % whole]  # sources in the midst of a window
    size = t - sum(floors)
    if not size:
        return tuple(floors)
    opened = {i: floors[i] * whole // parts[i] for i in open_}
    deadline = {i: -(-(floors[i] + 1) * whole // parts[i]) for i in open_}
    caps = _backward_caps(parts, t, opened)
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
        raise AssertionError(f"no feasible border at {t} for {parts}: a fault in the schedule, please report it")
    return tuple(floor + (i in chosen) for i, floor in enumerate(floors))


def _backward_caps(parts: Sequence[int], t: int, opened: Mapping[int, int]) -> dict[int, int]:
    """How many of the sources whose window opened at `level` or later may be in S, for each such level.

    That is the least `t - a - sum_i [floor(w_i t) - ceil(w_i a)]+` over the a down to the next lower level (exclusive),
    which share one Q(a). No a before the first opening binds: there Q(a) is everything.
    """
    whole = sum(parts)
    first = min(opened.values())
    a = np.arange(first, t, dtype=np.int64)  # at most about 1 / (smallest share) of them
    room = t - a
    for n in parts:
        remainder = n * t % whole  # the difference is taken relative to t, so that the products fit in int64
        room -= np.maximum(0, (n * (t - a) - remainder) // whole)  # = floor(w t) - ceil(w a)
    levels = sorted(set(opened.values()))
    since = [first, *(level + 1 for level in levels[:-1])]
    return {level: int(room[a0 - first : level - first + 1].min()) for a0, level in zip(since, levels, strict=True)}


def _serve(parts: Sequence[int], begin: int, length: int) -> _Block:
    """Earliest deadline first over the jobs between two borders."""
    whole = sum(parts)
    before, after = border(parts, begin), border(parts, begin + length)
    releases, keys = [], []
    for i, n in enumerate(parts):
        # Windows relative to the block, so that int64 is enough: with floor(w T) = f and remainder r, row f + j opens
        # at floor(((j - 1) W - r) / n) and closes at ceil((j W - r) / n).
        floor, remainder = divmod(n * begin, whole)
        j = np.arange(before[i] - floor + 1, after[i] - floor + 1, dtype=np.int64)
        releases.append(np.maximum(0, ((j - 1) * whole - remainder) // n))
        deadlines = np.minimum(length, -((remainder - j * whole) // n))
        keys.append(deadlines * len(parts) + i)  # earliest deadline, then lowest source
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
    deadline, source = np.divmod(np.array(served, np.int64), len(parts))
    if late := np.flatnonzero(deadline <= np.arange(length)).tolist():
        raise AssertionError(
            f"slot {begin + late[0]} misses a deadline for {parts}: a fault in the schedule, please report it"
        )
    source = source.astype(np.int32)
    occurrence = np.empty(length, np.int64)
    counts = np.array(after) - before
    by_source = np.argsort(
        source.astype(np.uint16) if len(parts) <= 1 << 16 else source, kind="stable"
    )  # 16 bits: radix
    occurrence[by_source] = np.arange(length) + np.repeat(np.array(before) - (np.cumsum(counts) - counts), counts)
    return _Block(source, occurrence, before)


def _exact(name: str, weight: object) -> Fraction:
    try:
        exact = Fraction(str(weight)) if isinstance(weight, float) else Fraction(weight)
    except (ValueError, TypeError, OverflowError):
        exact = Fraction(0)
    if exact <= 0:
        raise ConfigurationError(f"the weight of {name!r} is {weight!r}; weights are numbers above 0.")
    return exact
