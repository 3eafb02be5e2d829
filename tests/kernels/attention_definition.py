"""Attention and its gradients as they are defined: every pair of tokens, in float64, by formulas."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Defined(NamedTuple):
    """What the definition gives; float64. The gradients are of sum(out * of_out) + sum(log_sum * of_log_sum)."""

    out: np.ndarray
    log_sum: np.ndarray
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    sinks: np.ndarray


def sees(segment_ids, causal, window):
    """Whether each query of a row sees each key: bool [batch, length, length], pair by pair from the documents' lengths."""
    batch, length = segment_ids.shape
    seen = np.zeros((batch, length, length), bool)
    for row, ids in enumerate(np.asarray(segment_ids)):
        begin = 0
        for _, run in itertools.groupby(ids.tolist()):
            end = begin + len(list(run))
            seen[row, begin:end, begin:end] = True
            begin = end
    behind = np.arange(length)[:, None] - np.arange(length)  # how far before the query the key stands
    if causal:
        seen &= behind >= 0
    return seen if window is None else seen & (abs(behind) < window)


def definition(
    query, key, value, seen, *, soft_cap, scale, sinks=None, of_out=None, of_log_sum=None
):  # shapes as of `attention`; seen [batch, queries, keys]
    """See `Defined`. log_sum leaves the sinks out, as our kernels' does; a query must see something."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    of_out = np.zeros_like(query) if of_out is None else np.asarray(of_out, np.float64)
    of_log_sum = np.zeros(query.shape[:3]) if of_log_sum is None else np.asarray(of_log_sum, np.float64)
    found = Defined(
        *(np.zeros(shape) for shape in (query.shape, query.shape[:3], query.shape, key.shape, key.shape, heads))
    )
    for b, h in np.ndindex(batch, heads):
        shared = h // (heads // kv_heads)
        q, k, v, reads = query[b, :, h], key[b, :, shared], value[b, :, shared], of_out[b, :, h]
        bent = 1.0
        scores = q @ k.T * scale
        if soft_cap is not None:
            bent = 1 / np.cosh(scores / soft_cap) ** 2
            scores = soft_cap * np.tanh(scores / soft_cap)
        scores = np.where(seen[b], scores, -np.inf)
        log_sum = np.logaddexp.reduce(scores, axis=1)
        total = log_sum if sinks is None else np.logaddexp(log_sum, float(sinks[h]))
        shares = np.exp(scores - total[:, None])
        of_shares = reads @ v.T
        mean = np.sum(shares * of_shares, axis=1)
        of_scores = shares * (of_shares - mean[:, None]) + np.exp(scores - log_sum[:, None]) * of_log_sum[b, :, h, None]
        of_products = of_scores * bent * scale
        found.out[b, :, h], found.log_sum[b, :, h] = shares @ v, log_sum
        found.query[b, :, h] = of_products @ k
        found.key[b, :, shared] += of_products.T @ q
        found.value[b, :, shared] += shares.T @ reads
        if sinks is not None:
            found.sinks[h] -= np.sum(np.exp(float(sinks[h]) - total) * mean)
    return found


def off(found, exact):
    """How far `found` is from `exact`, relative in norm."""
    found = np.asarray(jnp.asarray(found, jnp.float32), np.float64)
    assert found.shape == exact.shape and np.isfinite(found).all()
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def documents(rng, batch, length, most):
    """Segment ids int32 [batch, length] of up to `most` documents a row, whose ids follow no order, some of them padding (0)."""
    cuts = np.sort(rng.integers(0, length, (batch, rng.integers(0, most))), axis=1)
    numbers = (np.arange(length)[None, :, None] >= cuts[:, None]).sum(-1)
    # Neighbours get unlike ids: otherwise they were one document.
    ids = np.stack([np.cumsum(rng.integers(1, 4, numbers.max() + 1)) % 5 for _ in range(batch)])
    return jnp.asarray(np.take_along_axis(ids, numbers, axis=1), jnp.int32)
