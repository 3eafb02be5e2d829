"""Rotary position embeddings (arXiv 2104.09864), in the half-split convention of Hugging Face checkpoints."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cptjax.models.config import DecoderConfig


class Rotary(NamedTuple):
    """Cosine and sine of each position's angles: float32 [batch, length, head_dim / 2]."""

    cosine: jax.Array
    sine: jax.Array


def inverse_frequencies(config: DecoderConfig) -> np.ndarray:
    """Radians per position of each rotated pair: float32 [head_dim / 2].

    Computed in float32 as the checkpoints' own training code does, so that far positions get the same angles. The
    stretching is that of Llama 3.1 (config.Llama3Rope).
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = np.float32(1.0) / np.power(np.float32(config.rope_theta), exponents)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = np.float32(scaling.original_length) * frequencies / np.float32(2 * math.pi)
    slowed = frequencies / np.float32(scaling.factor)
    span = scaling.high_frequency_factor - scaling.low_frequency_factor
    kept = np.clip((turns - np.float32(scaling.low_frequency_factor)) / np.float32(span), 0.0, 1.0)
    return ((1 - kept) * slowed + kept * frequencies).astype(np.float32)


def rotary(config: DecoderConfig, positions: jax.Array) -> Rotary:
    """The angles of int32 [batch, length] positions. Computed once for all layers."""
    angles = positions[..., None].astype(jnp.float32) * inverse_frequencies(config)
    return Rotary(jnp.cos(angles), jnp.sin(angles))


def rotate(x: jax.Array, angles: Rotary) -> jax.Array:
    """Turns the pairs (x[i], x[i + head_dim / 2]) of [batch, length, heads, head_dim]; same shape and dtype."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = angles.cosine[:, :, None, :], angles.sine[:, :, None, :]
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)
