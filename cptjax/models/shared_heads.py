"""Heads of keys where the mesh has more ways to cut them than there are."""

import jax
import jax.numpy as jnp

from cptjax.sharding.rules import partition_spec


def with_copies(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values [batch, length, kv_heads, head_dim], repeated as often as the mesh in force needs to cut them like queries.

    Neighbours that share a head each get a copy of it. Where the mesh does not cut queries by heads they stay as they are.
    """
    mesh = jax.sharding.get_abstract_mesh()
    cut = partition_spec(mesh, (None, None, "heads", None), query.shape)[2]
    ways = 1 if cut is None else mesh.shape[cut]
    copies = next(n for n in range(1, query.shape[2] + 1) if key.shape[2] * n % ways == 0)
    return tuple(jnp.repeat(array, copies, axis=2) if copies > 1 else array for array in (key, value))
