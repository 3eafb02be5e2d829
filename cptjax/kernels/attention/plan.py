"""Which blocks of queries and keys the TPU kernels visit, found once for a batch from whom its queries may see.

A kernel's grid has one step for each block of queries and each part of the row's keys that lies in VMEM together, of those
that have anything to do with each other; their number is a traced value, so documents may change without recompiling, and
what is not visited costs nothing, not an empty step. Within a step a loop goes over blocks of keys from the first to the
last that any of the queries sees. Those in the middle that all of them see whole need no mask.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cptjax.kernels.attention.block_sizes import LANES, MOST_BLOCKS, BlockSizes
from cptjax.kernels.attention.intervals import Intervals


class Place(NamedTuple):
    """Where a step is, in one int32: the row of the batch, the block of queries, and the part of the keys.

    Attributes:
        queries, parts: bits of the two last ones.
    """

    queries: int
    parts: int

    def packed(self, row: np.ndarray, queries: np.ndarray, part: np.ndarray) -> np.ndarray:
        return (row << (self.queries + self.parts)) + (queries << self.parts) + part

    def of(self, packed: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The reverse of `packed`: row, block of queries, part."""
        queries = (packed >> self.parts) & ((1 << self.queries) - 1)
        return packed >> (self.parts + self.queries), queries, packed & ((1 << self.parts) - 1)


class Work(NamedTuple):
    """What a step does.

    begin, clear, cloudy, end: blocks of keys, counted within the part: [begin, end) are visited, [clear, cloudy) unmasked.
    first, last: whether (1 or 0) the step begins, ends what it adds to.
    """

    begin: jax.Array
    clear: jax.Array
    cloudy: jax.Array
    end: jax.Array
    first: jax.Array
    last: jax.Array

    def packed(self) -> jax.Array:
        """All of it in one int32; a part has at most `MOST_BLOCKS` blocks."""
        edges = (edge << (_EDGE_BITS * number) for number, edge in enumerate(self[:4]))
        return sum(edges) + (self.first << (4 * _EDGE_BITS)) + (self.last << (4 * _EDGE_BITS + 1))

    @classmethod
    def of(cls, packed: jax.Array) -> "Work":
        """The reverse of `packed`."""
        edges = ((packed >> (_EDGE_BITS * number)) & MOST_BLOCKS for number in range(4))
        return cls(*edges, (packed >> (4 * _EDGE_BITS)) & 1, (packed >> (4 * _EDGE_BITS + 1)) & 1)


_EDGE_BITS = MOST_BLOCKS.bit_length()


@functools.partial(jax.tree_util.register_dataclass, data_fields=["count", "place", "work"], meta_fields=["at"])
@dataclasses.dataclass(frozen=True)
class Steps:
    """A kernel's grid, two numbers a step: a core keeps them in a small memory of its own.

    Attributes:
        count: int32 [1], how many steps there are.
        place, work: int32 [most steps], where a step is and what it does, packed.
        at: how places are packed.
    """

    count: jax.Array
    place: jax.Array
    work: jax.Array
    at: Place


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["intervals", "forward", "backward"],
    meta_fields=["sizes", "length", "keys"],
)
@dataclasses.dataclass(frozen=True)
class Plan:
    """What is visited of a batch's rows.

    Attributes:
        intervals: whom each query sees; int32 [batch, queries], filled up with queries that see nothing.
        forward: the grid of the forward pass. first and last: of a block of queries.
        backward: the grids of the backward pass, one for each part of the keys. first and last: of a row.
        sizes: the block sizes, cut to the row's length.
        length, keys: tokens of a row of queries, and of the keys they see, as they come (not filled up).
    """

    intervals: Intervals
    forward: Steps
    backward: tuple[Steps, ...]
    sizes: BlockSizes
    length: int
    keys: int


def plan_intervals(intervals: Intervals, keys: int, block_sizes: BlockSizes) -> Plan:
    """The plan of queries that see the keys in `intervals`, of `keys` keys that there are."""
    length = intervals.first.shape[1]
    sizes = fitted(block_sizes, length, keys)
    fill = filled(length, max(sizes.queries, sizes.backward_queries)) - length
    held = Intervals(
        jnp.pad(intervals.first, ((0, 0), (0, fill)), constant_values=keys),
        jnp.pad(intervals.last, ((0, 0), (0, fill)), constant_values=-1),
    )
    parts = parts_of(keys, sizes.resident_keys)
    whole = _stretches(held, sizes.queries, sizes.keys)
    forward = _forward_steps(whole, sizes.resident_keys // sizes.keys, parts)
    parts = parts_of(keys, sizes.backward_resident_keys)
    whole = _stretches(held, sizes.backward_queries, sizes.backward_keys)
    blocks = sizes.backward_resident_keys // sizes.backward_keys
    backward = tuple(_backward_steps(whole, blocks, part, parts) for part in range(parts))
    return Plan(held, forward, backward, sizes, length, keys)


def fitted(sizes: BlockSizes, length: int, keys: int) -> BlockSizes:
    """Block sizes no larger than rows of `length` queries and `keys` keys ask for, resident keys cut into equal parts."""
    short = {name: min(getattr(sizes, name), filled(length, LANES)) for name in ("queries", "backward_queries")}
    for name, whole in (("keys", "resident_keys"), ("backward_keys", "backward_resident_keys")):
        block = short[name] = min(getattr(sizes, name), filled(keys, LANES))
        blocks = filled(keys, block) // block
        parts = -(-blocks // max(1, getattr(sizes, whole) // block))
        short[whole] = block * -(-blocks // parts)
    queries, backward = short["queries"], short["backward_queries"]
    if max(queries, backward) % min(queries, backward):  # rows are filled up to a multiple of both
        short["queries"] = short["backward_queries"] = min(queries, backward)
    return BlockSizes(**short)


def filled(count: int, block: int) -> int:
    """`count` rounded up to whole blocks."""
    return -(-count // block) * block


def parts_of(keys: int, resident: int) -> int:
    """Into how many parts of `resident` keys a row's keys fall."""
    return -(-keys // resident)


class _Stretches(NamedTuple):
    """Blocks of keys of each (row, block of queries): [begin, end) are visited, [clear, cloudy) unmasked."""

    begin: jax.Array
    clear: jax.Array
    cloudy: jax.Array
    end: jax.Array

    def within(self, part: int | jax.Array, blocks: int) -> "_Stretches":
        """Counted from a part of `blocks` blocks, and cut to it."""
        return _Stretches(*(jnp.clip(edge - part * blocks, 0, blocks) for edge in self))


def _stretches(intervals: Intervals, queries: int, keys: int) -> _Stretches:
    """Which blocks of keys each block of queries needs, and which it sees whole; int32 [batch, blocks of queries] each.

    What the queries of a block see is one stretch of keys: neighbours see stretches that touch or overlap, or one of them
    sees nothing.
    """
    batch = intervals.first.shape[0]
    first, last = (array.reshape(batch, -1, queries) for array in intervals)
    sees = first <= last
    none = jnp.iinfo(jnp.int32).max
    begin = jnp.min(jnp.where(sees, first, none), -1) // keys
    end = jnp.max(jnp.where(sees, last, -1), -1) // keys + 1  # 0 where nobody sees anything
    begin = jnp.minimum(begin, end)
    # A block is seen whole from the last of the first keys on, up to the first of the last ones.
    clear = jnp.clip(-(-jnp.max(first, -1) // keys), begin, end)
    cloudy = jnp.clip((jnp.min(last, -1) + 1) // keys, clear, end)
    return _Stretches(begin, clear, cloudy, end)


def _forward_steps(whole: _Stretches, blocks: int, parts: int) -> Steps:
    """By row, block of queries, part. A block that sees nothing has one empty step: its result is written too.

    blocks: of keys, in a part.
    """
    whole = _Stretches(*(edge[..., None] for edge in whole))
    part = jnp.arange(parts, dtype=jnp.int32)
    held = whole.within(part, blocks)
    nothing, sees = (whole.end == 0) & (part == 0), held.begin < held.end
    first = nothing | (sees & (whole.begin >= part * blocks))
    last = nothing | (sees & (whole.end <= (part + 1) * blocks))
    return _needed(nothing | sees, _packed(held, first, last), 0, parts)


def _backward_steps(whole: _Stretches, blocks: int, part: int, parts: int) -> Steps:
    """By row and block of queries, of one part. Each row has a step, since its keys' gradients are written at its end.

    If it is the only part every block of queries has a step, for it writes their gradients.
    """
    held = whole.within(part, blocks)
    if parts == 1:
        number = jnp.broadcast_to(jnp.arange(held.end.shape[1]), held.end.shape)
        return _all(_packed(held, number == 0, number == held.end.shape[1] - 1)[..., None])
    needed = held.begin < held.end
    needed = needed.at[:, 0].set(needed[:, 0] | ~jnp.any(needed, -1))
    order = jnp.cumsum(needed, -1)
    first, last = needed & (order == 1), needed & (order == order[:, -1:])
    return _needed(needed[..., None], _packed(held, first, last)[..., None], part, parts)


def _packed(held: _Stretches, first: jax.Array, last: jax.Array) -> jax.Array:
    return Work(*held, first.astype(jnp.int32), last.astype(jnp.int32)).packed()


def _needed(needed: jax.Array, work: jax.Array, part: int, parts: int) -> Steps:
    """The needed of all (row, block of queries, part), one after another.

    Args:
        needed, work: [rows, blocks of queries, parts from number `part` on].
        parts: how many there are in all.
    """
    at, place = _places(needed.shape, part, parts)
    key = jnp.where(needed, place, jnp.iinfo(jnp.int32).max)
    place, work = jax.lax.sort((key.reshape(-1), work.reshape(-1)), is_stable=False, num_keys=1)
    return Steps(jnp.sum(needed, dtype=jnp.int32)[None], place, work, at)


def _all(work: jax.Array) -> Steps:
    """All of [rows, blocks of queries, 1]."""
    at, place = _places(work.shape, 0, 1)
    return Steps(jnp.full(1, work.size, jnp.int32), jnp.asarray(place.reshape(-1)), work.reshape(-1), at)


def _places(shape: tuple[int, ...], part: int, parts: int) -> tuple[Place, np.ndarray]:
    """Of [rows, blocks of queries, parts from number `part` on], of `parts` in all."""
    at = Place((shape[1] - 1).bit_length(), (parts - 1).bit_length())
    row, queries, number = np.indices(shape, np.int32)
    return at, at.packed(row, queries, number + part)
