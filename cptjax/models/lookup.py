"""Rows of an embedding table that a mesh cuts: each device looks up its part of every token of its group, and they trade.

Left to XLA the whole table is gathered to every device, and its whole gradient summed over all of them: 3 GiB each way for
256,000 x 6,144 in bfloat16. Here only what the tokens need is sent, and the gradient stays where the table is.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Float, Int

from cptjax.sharding.rules import constrain, partition_spec

GROUP = "fsdp"  # the axis that cuts both the table's width and the batch


class LookupCut(NamedTuple):
    """Where the ids and the table are, and over which other axes the ids are cut."""

    mesh: AbstractMesh
    ids: PartitionSpec
    table: PartitionSpec
    rows_axis: str | None
    other_token_axes: tuple[str, ...]


def look_up(
    table: Float[Array, "rows width"], ids: Int[Array, "batch length"], dtype: str
) -> Float[Array, "batch length width"]:
    """Row `ids` of the table in `dtype`; an id beyond the table is its last row.

    The table's gradient adds up in float32 where the mesh in force cuts it, in `dtype` where there is one device.
    """
    cut = _cut(table.shape, ids.shape)
    if cut is not None:
        return _traded(table, jnp.clip(ids, 0, table.shape[0] - 1), dtype, cut)
    return jnp.take(constrain(table.astype(dtype), "vocabulary", None), ids, axis=0, mode="clip")


def _cut(table: tuple[int, ...], ids: tuple[int, ...]) -> LookupCut | None:
    """None where the mesh in force does not cut width and batch over the same axis."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get(GROUP, 1) == 1:
        return None
    of_table = partition_spec(mesh, ("vocabulary", "hidden"), table)
    of_ids = partition_spec(mesh, ("batch", "sequence"), ids)
    axes = [axis for entry in of_ids for axis in ((entry,) if isinstance(entry, str) else entry or ())]
    if of_table[1] != GROUP or GROUP not in axes:
        return None
    return LookupCut(mesh, of_ids, of_table, of_table[0], tuple(axis for axis in axes if axis != GROUP))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _traded(table: jax.Array, ids: jax.Array, dtype: str, cut: LookupCut) -> jax.Array:
    def forward(table: jax.Array, ids: jax.Array) -> jax.Array:
        local, mine = _of_group(ids, table.shape[0], cut)
        part = jnp.take(table.astype(dtype), local, axis=0, mode="clip")
        if cut.rows_axis:
            part = jax.lax.psum(jnp.where(mine[..., None], part, 0), cut.rows_axis)
        return jax.lax.all_to_all(part, GROUP, split_axis=0, concat_axis=2, tiled=True)

    return _mapped(forward, cut, (cut.table, cut.ids), PartitionSpec(*cut.ids, None))(table, ids)


def _forward_rule(table: jax.Array, ids: jax.Array, dtype: str, cut: LookupCut):
    return _traded(table, ids, dtype, cut), (ids, jnp.empty((0, *table.shape), table.dtype))


def _backward_rule(dtype: str, cut: LookupCut, saved, cotangent: jax.Array):
    ids, like = saved
    rows = like.shape[1] // (cut.mesh.shape[cut.rows_axis] if cut.rows_axis else 1)
    width = like.shape[2] // cut.mesh.shape[GROUP]

    def backward(ids: jax.Array, cotangent: jax.Array) -> jax.Array:
        local, mine = _of_group(ids, rows, cut)
        part = jax.lax.all_to_all(cotangent, GROUP, split_axis=2, concat_axis=0, tiled=True)
        part = jnp.where(mine[..., None], part, 0).astype(jnp.float32)
        gradient = jnp.zeros((rows, width), jnp.float32).at[local.reshape(-1)].add(part.reshape(-1, width), mode="clip")
        return jax.lax.psum(gradient, cut.other_token_axes) if cut.other_token_axes else gradient

    given = (cut.ids, PartitionSpec(*cut.ids, None))
    return _mapped(backward, cut, given, cut.table)(ids, cotangent).astype(like.dtype), None


_traded.defvjp(_forward_rule, _backward_rule)


def _of_group(ids: jax.Array, rows: int, cut: LookupCut) -> tuple[jax.Array, jax.Array]:
    """The ids of all tokens of the group, counted from this device's first row, and which of them are its."""
    local = jax.lax.all_gather(ids, GROUP, axis=0, tiled=True)
    if cut.rows_axis:
        local = local - jax.lax.axis_index(cut.rows_axis) * rows
    return local, (local >= 0) & (local < rows)


def _mapped(function, cut: LookupCut, given: tuple, result: PartitionSpec):
    # Nothing is differentiated through it, and every sum over devices is written out: JAX need not follow what varies.
    return jax.shard_map(function, mesh=cut.mesh, in_specs=given, out_specs=result, check_vma=False)
