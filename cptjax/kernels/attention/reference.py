"""Attention in plain JAX: the definition that every other implementation is compared with, and the CPU's own.

Rows are worked through in chunks of queries, each recomputed in the backward pass, so that no array of length x length
exists: memory grows with the length, not with its square. Up to `UNROLLED` tokens the chunks are unrolled, each against
just the keys that causality and window let it reach; small chunks stay in the cache (at length 512 on a CPU 64 queries at
a time are 3.5 times as fast forward as 512, and 2.4 times as fast with the gradient). Longer rows loop over equal chunks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

CHUNK = 512  # queries at a time in rows too long to unroll
UNROLLED = 8192  # the longest row that is unrolled
PIECES, SMALLEST = 16, 64  # into at most so many chunks, of at least so many queries
# Scores of pairs that must not see each other. Finite, so that a row of them stays finite; exp of it is exactly 0.
HIDDEN = -1e30


class Settings(NamedTuple):
    """Who may see whom, and how scores are formed; see `attention.attention`."""

    causal: bool
    window: int | None
    soft_cap: float | None
    scale: float


class Side(NamedTuple):
    """Where a chunk's tokens stand in the row (int32 [tokens]) and whose document each is (int32 [batch, tokens])."""

    places: jax.Array
    segments: jax.Array


def reference_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segment_ids: jax.Array,
    causal: bool,
    window: int | None,
    soft_cap: float | None,
    scale: float,
    chunk: int | None = None,
    unrolled: int = UNROLLED,
) -> jax.Array:
    """See `attention.attention`; `chunk` is the number of queries at a time, `unrolled` the longest row without a loop."""
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    settings = Settings(causal, window, soft_cap, scale)
    # Heads-major from here on: [batch, kv_heads, (group,) length, head_dim] multiplies 2.3 times faster on a CPU.
    key, value = (jnp.moveaxis(array, 2, 1) for array in (key, value))
    query = jnp.moveaxis(query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim), 1, 3)
    if length <= unrolled:
        out = _unrolled(query, key, value, segment_ids, settings, chunk or max(SMALLEST, -(-length // PIECES)))
    else:
        out = _looped(query, key, value, segment_ids, settings, min(chunk or CHUNK, length))
    return jnp.moveaxis(out, 3, 1).reshape(batch, length, heads, head_dim)


def _unrolled(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array, settings: Settings, chunk: int
) -> jax.Array:
    """Chunks of queries one after another, each against the keys from the first to the last that it may see."""
    length = query.shape[3]
    back = length if settings.window is None else settings.window - 1
    ahead = 0 if settings.causal else back
    recomputed = jax.checkpoint(attend, static_argnums=(5,))
    outs = []
    for start in range(0, length, chunk):
        stop = min(length, start + chunk)
        first, last = max(0, start - back), min(length, stop + ahead)
        rows = Side(jnp.arange(start, stop), segment_ids[:, start:stop])
        columns = Side(jnp.arange(first, last), segment_ids[:, first:last])
        keys, values = key[:, :, first:last], value[:, :, first:last]
        outs.append(recomputed(query[:, :, :, start:stop], keys, values, rows, columns, settings))
    return jnp.concatenate(outs, axis=3)


def _looped(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array, settings: Settings, chunk: int
) -> jax.Array:
    """Chunks of queries one after another; with a window, each against only the keys its window can reach."""
    length = query.shape[3]
    chunks = -(-length // chunk)
    # The last chunk is moved back to end with the row; what it computes twice is the same, and is taken once.
    starts = jnp.minimum(jnp.arange(chunks) * chunk, length - chunk)
    back = 0 if settings.window is None else settings.window - 1
    reach = length if settings.window is None else min(length, chunk + back * (1 if settings.causal else 2))

    @jax.checkpoint
    def one(start: jax.Array) -> jax.Array:
        first = jnp.clip(start - back, 0, length - reach)
        cut = jax.lax.dynamic_slice_in_dim
        rows = Side(start + jnp.arange(chunk), cut(segment_ids, start, chunk, 1))
        columns = Side(first + jnp.arange(reach), cut(segment_ids, first, reach, 1))
        keys, values = cut(key, first, reach, 2), cut(value, first, reach, 2)
        return attend(cut(query, start, chunk, 3), keys, values, rows, columns, settings)

    outs = jnp.moveaxis(jax.lax.map(one, starts), 0, 3)  # [batch, kv_heads, group, chunks, chunk, head_dim]
    whole = outs[:, :, :, : length // chunk].reshape(*query.shape[:3], -1, query.shape[-1])
    remainder = length % chunk
    return whole if remainder == 0 else jnp.concatenate([whole, outs[:, :, :, -1, chunk - remainder :]], axis=3)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, rows: Side, columns: Side, settings: Settings
) -> jax.Array:
    """Queries [batch, kv_heads, group, rows, head_dim] against keys and values [batch, kv_heads, columns, head_dim]."""
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    scores = jnp.einsum("bkgqd,bksd->bkgqs", query, key, precision=precision, preferred_element_type=jnp.float32)
    scores = scores * settings.scale
    if settings.soft_cap is not None:
        scores = settings.soft_cap * jnp.tanh(scores / settings.soft_cap)

    distance = rows.places[:, None] - columns.places[None, :]
    seen = rows.segments[:, :, None] == columns.segments[:, None, :]
    if settings.causal:
        seen &= distance >= 0
    if settings.window is not None:
        seen &= jnp.abs(distance) < settings.window
    scores = jnp.where(seen[:, None, None], scores, HIDDEN)

    # The shift cancels in the quotient, so it needs no gradient.
    shares = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    total = jnp.sum(shares, axis=-1, keepdims=True)
    out = jnp.einsum(
        "bkgqs,bksd->bkgqd", shares.astype(value.dtype), value, precision=precision, preferred_element_type=jnp.float32
    )
    return (out / total).astype(query.dtype)
