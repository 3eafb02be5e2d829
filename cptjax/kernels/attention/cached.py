"""Attention of new tokens to all that a cache remembers: the arithmetic of `reference.py`, on keys that were kept."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cptjax.kernels.attention.intervals import Intervals
from cptjax.kernels.attention.reference import Settings, attend


def cached_attention(
    query: Float[Array, "batch new heads head_dim"],
    keys: Float[Array, "batch length kv_heads head_dim"],
    values: Float[Array, "batch length kv_heads head_dim"],
    *,
    start: Int[Array, " batch"] | Int[Array, ""] | int,
    window: int | None = None,
    soft_cap: float | None = None,
    scale: float | None = None,
) -> Float[Array, "batch new heads head_dim"]:
    """What queries at places start, start + 1, ... read from places 0 to their own; the dtype of `query`.

    Places after a query's own hold nothing yet and contribute exactly nothing, whatever stands there (if it is finite).

    Args:
        keys, values: by place, those of the new tokens included.
        start: of each sequence, or of all of them.
        window: see only the token itself and the window - 1 before it.
        soft_cap, scale: of the scores, as in `attention`.
    """
    batch, new, heads, head_dim = query.shape
    length, kv_heads = keys.shape[1:3]
    query = jnp.moveaxis(query.reshape(batch, new, kv_heads, heads // kv_heads, head_dim), 1, 3)
    places = jnp.broadcast_to(jnp.asarray(start)[..., None] + jnp.arange(new), (batch, new))
    rows = Intervals(jnp.zeros_like(places) if window is None else places - (window - 1), places)
    scale = 1.0 / math.sqrt(head_dim) if scale is None else scale
    settings = Settings(soft_cap, scale, length, length)
    out, _ = attend(query, jnp.moveaxis(keys, 2, 1), jnp.moveaxis(values, 2, 1), rows, jnp.arange(length), settings)
    return jnp.moveaxis(out, 3, 1).reshape(batch, new, heads, head_dim)
