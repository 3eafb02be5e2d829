"""Attention of new tokens to all that a cache remembers: the arithmetic of `reference.py`, on keys that were kept."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cptjax.kernels.attention.reference import Settings, Side, attend


def cached_attention(
    query: Float[Array, "batch new heads head_dim"],
    keys: Float[Array, "batch length kv_heads head_dim"],
    values: Float[Array, "batch length kv_heads head_dim"],
    *,
    start: Int[Array, ""] | int,
    window: int | None = None,
    soft_cap: float | None = None,
    scale: float | None = None,
) -> Float[Array, "batch new heads head_dim"]:
    """What queries at places start, start + 1, ... read from places 0 to their own; the dtype of `query`.

    Places after a query's own hold nothing yet and contribute exactly nothing, whatever stands there (if it is finite).

    Args:
        keys, values: by place, those of the new tokens included.
        window: see only the token itself and the window - 1 before it.
        soft_cap, scale: of the scores, as in `attention`.
    """
    batch, new, heads, head_dim = query.shape
    length, kv_heads = keys.shape[1:3]
    query = jnp.moveaxis(query.reshape(batch, new, kv_heads, heads // kv_heads, head_dim), 1, 3)
    rows = Side(start + jnp.arange(new), jnp.ones((batch, new), jnp.int32))
    columns = Side(jnp.arange(length), jnp.ones((batch, length), jnp.int32))
    scale = 1.0 / math.sqrt(head_dim) if scale is None else scale
    settings = Settings(causal=True, window=window, soft_cap=soft_cap, scale=scale)
    out = attend(query, jnp.moveaxis(keys, 2, 1), jnp.moveaxis(values, 2, 1), rows, columns, settings)
    return jnp.moveaxis(out, 3, 1).reshape(batch, new, heads, head_dim)
