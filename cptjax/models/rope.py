"""Rotary position embeddings (arXiv 2104.09864), in the half-split convention of Hugging Face checkpoints."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cptjax.models.config import DecoderConfig
from cptjax.models.rope_scaling import LinearRope, Llama3Rope, RopeScaling, YarnRope


class Rotary(NamedTuple):
    """Cosine and sine of each position's angles: float32 [batch, length, rotary_dim / 2]."""

    cosine: jax.Array
    sine: jax.Array


def rotary(config: DecoderConfig, positions: jax.Array) -> tuple[Rotary | None, ...]:
    """The angles of int32 [batch, length] positions for each layer of the window pattern, computed once for all layers.

    None where queries and keys are not turned.
    """
    if config.positions == "learned":
        return (None,) * len(config.windows)
    settings = [settings_of(config, window) for window in config.windows]
    found = {setting: _rotary(config.rotary_dim, *setting, positions) for setting in dict.fromkeys(settings)}
    return tuple(found[setting] for setting in settings)


def settings_of(config: DecoderConfig, window: int | None) -> tuple[float, RopeScaling | None]:
    """Base and stretching of the frequencies in a layer with this window."""
    if window is None or config.window_rope_theta is None:
        return config.rope_theta, config.rope_scaling
    return config.window_rope_theta, None


def _rotary(dimensions: int, theta: float, scaling: RopeScaling | None, positions: jax.Array) -> Rotary:
    angles = positions[..., None].astype(jnp.float32) * frequencies(dimensions, theta, scaling)
    turn = Rotary(jnp.cos(angles), jnp.sin(angles))
    return turn if not isinstance(scaling, YarnRope) else Rotary(*(part * attention_factor(scaling) for part in turn))


def attention_factor(scaling: YarnRope) -> float:
    """What YaRN multiplies turned queries and keys by."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0


def inverse_frequencies(config: DecoderConfig, window: int | None = None) -> np.ndarray:
    """Radians per position of each rotated pair in layers with this window: float32 [rotary_dim / 2]."""
    return frequencies(config.rotary_dim, *settings_of(config, window))


def frequencies(dimensions: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
    """Radians per position of each pair of the rotated dimensions.

    Computed in float32 as the checkpoints' own training code does, so that far positions get the same angles.
    """
    exponents = np.arange(0, dimensions, 2, dtype=np.float32) / np.float32(dimensions)
    plain = np.float32(1.0) / np.power(np.float32(theta), exponents)
    if scaling is None:
        return plain
    slowed = plain / np.float32(scaling.factor)
    if isinstance(scaling, LinearRope):
        return slowed
    share = (
        _llama3_share(plain, scaling) if isinstance(scaling, Llama3Rope) else _yarn_share(dimensions, theta, scaling)
    )
    return ((1 - share) * slowed + share * plain).astype(np.float32)


def _llama3_share(plain: np.ndarray, scaling: Llama3Rope) -> np.ndarray:
    """How much of each frequency is kept."""
    turns = np.float32(scaling.original_length) * plain / np.float32(2 * math.pi)
    span = scaling.high_frequency_factor - scaling.low_frequency_factor
    return np.clip((turns - np.float32(scaling.low_frequency_factor)) / np.float32(span), 0.0, 1.0)


def _yarn_share(dimensions: int, theta: float, scaling: YarnRope) -> np.ndarray:
    """How much of each frequency is kept (YaRN, section 3.2; the bounds as in transformers)."""

    def dimension(turns: float) -> float:
        """The one that turns so often in the original length."""
        return dimensions * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.fast), dimension(scaling.slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dimensions - 1)
    span = high - low if high != low else 0.001
    return 1 - np.clip((np.arange(dimensions // 2, dtype=np.float32) - low) / np.float32(span), 0.0, 1.0)


def rotate(x: jax.Array, angles: Rotary | None) -> jax.Array:
    """Turns the pairs (x[i], x[i + rotary_dim / 2]) of [batch, length, heads, head_dim]; same shape and dtype.

    Dimensions from rotary_dim on stay as they are.
    """
    if angles is None:
        return x
    half = angles.cosine.shape[-1]
    first, second, rest = jnp.split(x.astype(jnp.float32), [half, 2 * half], axis=-1)
    cosine, sine = angles.cosine[:, :, None, :], angles.sine[:, :, None, :]
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine, rest], axis=-1)
    return turned.astype(x.dtype)
