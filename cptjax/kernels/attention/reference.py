"""Attention in plain JAX: the definition that every other implementation is compared with, and the CPU's own.

Rows are worked through in chunks of queries, each recomputed in the backward pass, so that no array of length x length
exists: memory grows with the length, not with its square. Up to `UNROLLED` tokens the chunks are unrolled, each against
just the keys that causality and window let it reach; small chunks stay in the cache (at length 512 on a CPU 64 queries at
a time are 3.5 times as fast forward as 512, and 2.4 times as fast with the gradient). Longer rows loop over equal chunks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cptjax.kernels.attention.intervals import Intervals, seen

CHUNK = 512  # queries at a time in rows too long to unroll
UNROLLED = 8192  # the longest row that is unrolled
PIECES, SMALLEST = 16, 64  # into at most so many chunks, of at least so many queries
# Scores of pairs that must not see each other. Finite, so that a row of them stays finite; exp of it is exactly 0.
HIDDEN = -1e30


class Settings(NamedTuple):
    """How scores are formed, and how far before and behind its own place the keys lie that a query may see at all."""

    soft_cap: float | None
    scale: float
    back: int
    ahead: int


def reference_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    intervals: Intervals,
    *,
    causal: bool = False,
    window: int | None = None,
    soft_cap: float | None,
    scale: float,
    chunk: int | None = None,
    unrolled: int = UNROLLED,
) -> tuple[jax.Array, jax.Array]:
    """See `attention.attention`: what queries read, and float32 [batch, length, heads], the log of the sum of the exponentials
    of their scores. Of a query that sees nothing, both are finite and the log-sum is so low that no other heeds it.

    Args:
        intervals: whom each query sees.
        causal, window: what is known of the intervals beforehand, where keys are the queries' own row: it saves work.
        chunk: the number of queries at a time; unrolled: the longest row without a loop.
    """
    batch, length, heads, head_dim = query.shape
    keys, kv_heads = key.shape[1:3]
    back = keys if window is None else window - 1
    settings = Settings(soft_cap, scale, back, 0 if causal else back)
    # Heads-major from here on: [batch, kv_heads, (group,) length, head_dim] multiplies 2.3 times faster on a CPU.
    key, value = (jnp.moveaxis(array, 2, 1) for array in (key, value))
    query = jnp.moveaxis(query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim), 1, 3)
    if length <= unrolled:
        out = _unrolled(query, key, value, intervals, settings, chunk or max(SMALLEST, -(-length // PIECES)))
    else:
        out = _looped(query, key, value, intervals, settings, min(chunk or CHUNK, length))
    mixed, log_sum = (jnp.moveaxis(array, 3, 1) for array in out)
    return mixed.reshape(batch, length, heads, head_dim), log_sum.reshape(batch, length, heads)


def reference_gradients(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    intervals: Intervals,
    cotangent: jax.Array,
    log_sum: jax.Array,
    delta: jax.Array,
    **settings: float | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients by queries, keys and values where those are a part of the keys that were read: see `ring.Local`."""

    def read(query, key, value):
        out, part = reference_attention(query, key, value, intervals, **settings)
        read = jnp.sum(out.astype(jnp.float32) * cotangent.astype(jnp.float32), axis=-1)
        # By a score it changes as the share of that score, of all, times how far its value is from what was read.
        return jnp.sum(jnp.exp(part - log_sum) * (read - delta))

    return jax.grad(read, (0, 1, 2))(query, key, value)


def _unrolled(
    query: jax.Array, key: jax.Array, value: jax.Array, intervals: Intervals, settings: Settings, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Chunks of queries one after another, each against the keys from the first to the last that it may see."""
    length, keys = query.shape[3], key.shape[2]
    recomputed = jax.checkpoint(attend, static_argnums=(5,))
    outs = []
    for start in range(0, length, chunk):
        stop = min(length, start + chunk)
        first, last = max(0, start - settings.back), min(keys, stop + settings.ahead)
        rows = Intervals(*(bound[:, start:stop] for bound in intervals))
        near = key[:, :, first:last], value[:, :, first:last]
        outs.append(recomputed(query[:, :, :, start:stop], *near, rows, jnp.arange(first, last), settings))
    return tuple(jnp.concatenate(each, axis=3) for each in zip(*outs, strict=True))


def _looped(
    query: jax.Array, key: jax.Array, value: jax.Array, intervals: Intervals, settings: Settings, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Chunks of queries one after another; with a window, each against only the keys its window can reach."""
    length, keys = query.shape[3], key.shape[2]
    chunks = -(-length // chunk)
    # The last chunk is moved back to end with the row; what it computes twice is the same, and is taken once.
    starts = jnp.minimum(jnp.arange(chunks) * chunk, length - chunk)
    windowed = settings.back < keys
    reach = min(keys, chunk + settings.back + settings.ahead) if windowed else keys

    @jax.checkpoint
    def one(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jnp.clip(start - settings.back, 0, keys - reach)
        cut = jax.lax.dynamic_slice_in_dim
        rows = Intervals(*(cut(bound, start, chunk, 1) for bound in intervals))
        near = cut(key, first, reach, 2), cut(value, first, reach, 2)
        return attend(cut(query, start, chunk, 3), *near, rows, first + jnp.arange(reach), settings)

    def joined(outs: jax.Array) -> jax.Array:
        outs = jnp.moveaxis(outs, 0, 3)  # [batch, kv_heads, group, chunks, chunk, ...]
        whole = outs[:, :, :, : length // chunk]
        whole = whole.reshape(*whole.shape[:3], -1, *whole.shape[5:])
        remainder = length % chunk
        return whole if not remainder else jnp.concatenate([whole, outs[:, :, :, -1, chunk - remainder :]], axis=3)

    return tuple(joined(outs) for outs in jax.lax.map(one, starts))


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, rows: Intervals, places: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
    """Queries [batch, kv_heads, group, rows, head_dim] against keys and values [batch, kv_heads, columns, head_dim], which
    stand at `places`: what they read, and the log of the sum of the exponentials of their scores."""
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    scores = jnp.einsum("bkgqd,bksd->bkgqs", query, key, precision=precision, preferred_element_type=jnp.float32)
    scores = scores * settings.scale
    if settings.soft_cap is not None:
        scores = settings.soft_cap * jnp.tanh(scores / settings.soft_cap)
    scores = jnp.where(seen(rows, places)[:, None, None], scores, HIDDEN)

    # The shift cancels in the quotient, so it needs no gradient.
    highest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    shares = jnp.exp(scores - highest)
    total = jnp.sum(shares, axis=-1, keepdims=True)
    out = jnp.einsum(
        "bkgqs,bksd->bkgqd", shares.astype(value.dtype), value, precision=precision, preferred_element_type=jnp.float32
    )
    return (out / total).astype(query.dtype), (highest + jnp.log(total))[..., 0]
