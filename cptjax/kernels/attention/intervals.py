"""Whom a query may see, said once: of each query the first and the last key that it sees.

A document is a run of equal segment ids. Within causality, a window and its document a query sees every key from the first
to the last, so two numbers say all; every implementation masks by them, and `plan.py` finds by them what need not be visited.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class Intervals(NamedTuple):
    """Of each query the places of the first and the last key that it sees, int32 [batch, queries]; nothing if first > last."""

    first: jax.Array
    last: jax.Array


def visible_keys(segment_ids: Int[Array, "batch length"], causal: bool, window: int | None) -> Intervals:
    """The keys that each token of a row sees.

    Args:
        segment_ids: a run of equal ids is a document, whatever the ids: they need not grow, and an id that comes again after
            another is another document. Padding (0) is a run like any other, so that nothing is divided by nothing.
        causal: nothing after the token itself.
        window: the token itself and the window - 1 before it (and as many after it, if not causal).
    """
    length = segment_ids.shape[1]
    places = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), segment_ids.shape)
    begins = document_begins(segment_ids)
    ends = jnp.concatenate([begins[:, 1:], jnp.ones_like(begins[:, :1])], axis=1)
    first = jax.lax.cummax(jnp.where(begins, places, 0), axis=1)
    last = jax.lax.cummin(jnp.where(ends, places, length - 1), axis=1, reverse=True)
    if window is not None:
        first, last = jnp.maximum(first, places - (window - 1)), jnp.minimum(last, places + (window - 1))
    return Intervals(first, places if causal else last)


def document_begins(segment_ids: Int[Array, "batch length"]) -> Bool[Array, "batch length"]:
    """Whether each token is the first of its document."""
    changes = segment_ids[:, 1:] != segment_ids[:, :-1]
    return jnp.concatenate([jnp.ones_like(segment_ids[:, :1], bool), changes], axis=1)


def seen(intervals: Intervals, places: Int[Array, " keys"]) -> jax.Array:
    """Whether each query sees the keys at `places`: bool [batch, queries, keys]."""
    return (intervals.first[:, :, None] <= places) & (places <= intervals.last[:, :, None])
