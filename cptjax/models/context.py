"""Rows cut over the mesh axis `context`: the order in which their tokens go through the layers, and attention around the ring."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import ring
from cptjax.kernels.attention.intervals import visible_keys
from cptjax.kernels.attention.local import local_attention, local_plan
from cptjax.models.config import DecoderConfig
from cptjax.models.layers import Attend
from cptjax.models.numerics import Numerics
from cptjax.models.shared_heads import with_copies
from cptjax.sharding.rules import partition_spec

CONTEXT = "context"


def ring_of(length: int) -> ring.Ring | None:
    """The ring that rows of `length` tokens are cut over on the mesh in force; None where the mesh does not cut these.

    Training refuses such rows beforehand (`check_pieces`); scoring has rows of any length, and leaves them whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    size = 1 if mesh.empty else mesh.shape.get(CONTEXT, 1)
    return None if size == 1 or length % (2 * size) else ring.Ring(CONTEXT, size)


def check_pieces(length: int, size: int) -> None:
    """Refuses rows of `length` tokens that do not fall into two equal pieces for each of `size` devices.

    Raises:
        ConfigurationError: with the lengths that do.
    """
    if size > 1 and length % (2 * size):
        raise ConfigurationError(
            f'MESH cuts rows over "context": {size} devices, each with two pieces, but rows of {length} tokens do not fall '
            f"into {2 * size} equal pieces.\n  Take a multiple of {2 * size} tokens (SEQUENCE_LENGTH), or another MESH."
        )


def balanced(array: jax.Array) -> jax.Array:
    """[batch, length, ...] in the row's order -> in the order in which causality gives all devices the same work."""
    return _moved(ring.balanced, array)


def in_order(array: jax.Array) -> jax.Array:
    """The reverse of `balanced`."""
    return _moved(ring.in_order, array)


def _moved(move: Callable, array: jax.Array) -> jax.Array:
    of = ring_of(array.shape[1])
    if of is None:
        return array
    mesh = jax.sharding.get_abstract_mesh()
    cut = partition_spec(mesh, ("batch", "sequence", *[None] * (array.ndim - 2)), array.shape)
    move = functools.partial(move, ring=of)
    return jax.shard_map(move, mesh=mesh, in_specs=(cut,), out_specs=cut, check_vma=False)(array)


def around_ring(implementation: str, numerics: Numerics) -> str:
    """The implementation for each device of a ring: as chosen, or the reference where "auto" chose one that cannot.

    Raises:
        ConfigurationError: one was asked for that does not say how much its result weighs.
    """
    if implementation in ("reference", "pallas_tpu"):
        return implementation
    if numerics.attention == "auto":
        return "reference"
    raise ConfigurationError(
        f'attention: {implementation} cannot put together what the devices of a "context" axis find.\n'
        "  Take 'pallas_tpu' or 'reference', or a MESH without it."
    )


def attend_around(config: DecoderConfig, numerics: Numerics, segment_ids: jax.Array, implementation: str) -> Attend:
    """What layers attend by where rows are cut: queries stay, keys and values travel (see `kernels.attention.ring`).

    Raises:
        ConfigurationError: see `around_ring`.
    """
    implementation = around_ring(implementation, numerics)
    of = ring_of(segment_ids.shape[1])
    mesh = jax.sharding.get_abstract_mesh()
    rows = partition_spec(mesh, ("batch", "sequence"), segment_ids.shape)
    # Every array of a plan begins with a dimension of the rows and pieces that it was made for.
    by_rows = (rows[0],) if isinstance(rows[0], str) else rows[0] or ()
    own = PartitionSpec((*by_rows, CONTEXT))
    specs = ring.RingPlan(own, PartitionSpec())

    def planned(window: int | None) -> ring.RingPlan:
        local = functools.partial(
            local_plan,
            implementation=implementation,
            head_dim=config.head_dim,
            dtype=jnp.dtype(numerics.compute_dtype),
        )
        plan = functools.partial(ring.plan_ring, ring=of, everywhere=tuple(mesh.axis_names), plan=local)
        intervals = jax.tree.map(balanced, visible_keys(segment_ids, True, window))
        return jax.shard_map(plan, mesh=mesh, in_specs=(rows,), out_specs=specs, check_vma=False)(intervals)

    plans = {window: planned(window) for window in dict.fromkeys(config.windows)}
    scale = 1.0 / math.sqrt(config.head_dim) if config.attention_scale is None else config.attention_scale

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, window: int | None) -> jax.Array:
        cut = partition_spec(mesh, ("batch", "sequence", "heads", None), query.shape)
        key, value = with_copies(query, key, value)

        def local(query, key, value, plan):
            by = local_attention(implementation, config.attention_soft_cap, scale)
            return ring.ring_attention(query, key, value, plan, of, by)[0]

        around = jax.shard_map(local, mesh=mesh, in_specs=(cut, cut, cut, specs), out_specs=cut, check_vma=False)
        return around(query, key, value, plans[window])

    return attend
