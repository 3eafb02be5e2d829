"""A number that tells one global batch from another, computed where the batch lies: what a run logs of each step's rows."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

_ARRAYS = ("inputs", "targets", "segment_ids", "positions", "weights", "source")
_LANES = (0x9E3779B9, 0x85EBCA6B)  # two hashes of 32 bits: JAX's integers have no 64 unless asked


def batch_hash(batch: Mapping[str, Array]) -> UInt32[Array, "2"]:
    """A hash of a batch's rows: every value of every array, with its row and its place in the row.

    Values are mixed each by itself and added as integers, so that the sum is the same however the batch is cut over devices
    and processes.

    Args:
        batch: arrays [rows, length], and `source` [rows] if there is one.
    """
    rows, length = batch["inputs"].shape
    place = jnp.arange(rows, dtype=jnp.uint32)[:, None] * jnp.uint32(length) + jnp.arange(length, dtype=jnp.uint32)
    values = [_bits(batch[name]) for name in _ARRAYS if name in batch]
    lanes = []
    for lane in _LANES:
        mixed = _mixed(place * jnp.uint32(lane) + jnp.uint32(1))
        for x in values:
            mixed = _mixed(mixed ^ (x if x.ndim == 2 else x[:, None]))
        lanes.append(jnp.sum(mixed, dtype=jnp.uint32))
    return jnp.stack(lanes)


def _bits(x: Array) -> UInt32[Array, "..."]:
    return jax.lax.bitcast_convert_type(jnp.asarray(x), jnp.uint32)


def _mixed(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32 bits in which each bit of the result depends on all (the last steps of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
