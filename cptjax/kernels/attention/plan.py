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

from cptjax.kernels.attention.block_sizes import LANES, BlockSizes
from cptjax.kernels.attention.intervals import Intervals


class Steps(NamedTuple):
    """A kernel's grid: int32 [most steps] each but `count`, int32 [1], how many of them there are.

    row, queries: the row of the batch and the block of queries. keys: the part of the keys.
    first, last: whether (1 or 0) the step begins, ends what it adds to.
    begin, clear, cloudy, end: blocks of keys, counted within the part: [begin, end) are visited, [clear, cloudy) unmasked.
    """

    count: jax.Array
    row: jax.Array
    queries: jax.Array
    keys: jax.Array
    first: jax.Array
    last: jax.Array
    begin: jax.Array
    clear: jax.Array
    cloudy: jax.Array
    end: jax.Array


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
    forward = _forward_steps(_visited(held, sizes.queries, sizes.keys, sizes.resident_keys, parts))
    of_backward = sizes.backward_resident_keys
    parts = parts_of(keys, of_backward)
    visited = _visited(held, sizes.backward_queries, sizes.backward_keys, of_backward, parts)
    backward = tuple(_backward_steps(visited, part, all_queries=parts == 1) for part in range(parts))
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


class _Visits(NamedTuple):
    """For each (row, block of queries, part): see `Steps`."""

    begin: jax.Array
    clear: jax.Array
    cloudy: jax.Array
    end: jax.Array


def _visited(intervals: Intervals, queries: int, keys: int, resident: int, parts: int) -> _Visits:
    """Which blocks of keys each block of queries needs, and which it sees whole; int32 [batch, blocks, parts] each.

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
    blocks = resident // keys
    base = jnp.arange(parts, dtype=jnp.int32) * blocks
    return _Visits(*(jnp.clip(edge[..., None] - base, 0, blocks) for edge in (begin, clear, cloudy, end)))


def _forward_steps(visits: _Visits) -> Steps:
    """By row, block of queries, part. A block that sees nothing has one empty step: its result is written too."""
    needed = visits.begin < visits.end
    needed = needed.at[..., 0].set(needed[..., 0] | ~jnp.any(needed, -1))
    order = jnp.cumsum(needed, -1)
    first, last = needed & (order == 1), needed & (order == order[..., -1:])
    return _compact(needed, visits, first, last)


def _backward_steps(visits: _Visits, part: int, all_queries: bool) -> Steps:
    """By row and block of queries, of one part. Each row has a step, since its keys' gradients are written at its end.

    all_queries: every block of queries has one, since this part alone writes their gradients.
    """
    visits = _Visits(*(edge[..., part] for edge in visits))
    needed = visits.begin < visits.end
    if all_queries:
        needed = jnp.ones_like(needed)
    else:
        needed = needed.at[:, 0].set(needed[:, 0] | ~jnp.any(needed, -1))
    order = jnp.cumsum(needed, -1)
    first, last = needed & (order == 1), needed & (order == order[:, -1:])
    widened = _Visits(*(edge[..., None] for edge in visits))
    return _compact(needed[..., None], widened, first[..., None], last[..., None])._replace(
        keys=jnp.full(needed.size, part, jnp.int32)
    )


def _compact(needed: jax.Array, visits: _Visits, first: jax.Array, last: jax.Array) -> Steps:
    """The needed of all (row, block of queries, part), one after another."""
    most = needed.size
    where = jnp.nonzero(needed.reshape(-1), size=most, fill_value=0)[0]
    row, queries, keys = (axis.astype(jnp.int32) for axis in jnp.unravel_index(where, needed.shape))

    def taken(array: jax.Array) -> jax.Array:
        return array.reshape(-1)[where].astype(jnp.int32)

    count = jnp.sum(needed, dtype=jnp.int32)[None]
    return Steps(count, row, queries, keys, taken(first), taken(last), *(taken(edge) for edge in visits))
