"""Norms: RMSNorm and LayerNorm, over the residual stream or over heads."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from cptjax.models.config import DecoderConfig
from cptjax.models.numerics import Numerics
from cptjax.models.weights import Dimension, ones, weight, zeros


class Norm(nnx.Module):
    """Over the last axes, in float32: x / rms(x) * scale (arXiv 1910.07467), or LayerNorm (arXiv 1607.06450).

    With `norm_unit_offset` the weight is what the factor exceeds 1 by (Gemma; Nemotron's LayerNorm1P).
    """

    def __init__(self, config: DecoderConfig, dimensions: Sequence[Dimension], stack: int | None, rngs: nnx.Rngs):
        self.epsilon = config.norm_epsilon
        self.offset = config.norm_unit_offset
        self.axes = tuple(range(-len(dimensions), 0))
        self.scale = weight(rngs, stack, dimensions, zeros if self.offset else ones)
        self.bias = weight(rngs, stack, dimensions, zeros) if config.norm == "layer" else None

    def __call__(self, x: jax.Array, numerics: Numerics) -> jax.Array:
        """The shape of x, in the compute dtype."""
        x = x.astype(jnp.float32)
        if self.bias is not None:
            x = x - jnp.mean(x, axis=self.axes, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=self.axes, keepdims=True) + self.epsilon)
        x = x * (1.0 + self.scale[...] if self.offset else self.scale[...])
        return (x if self.bias is None else x + self.bias[...]).astype(numerics.compute_dtype)


def stream_norm(config: DecoderConfig, stack: int | None, rngs: nnx.Rngs) -> Norm:
    """The norm of the residual stream."""
    return Norm(config, [(None, config.hidden)], stack, rngs)


def soft_capped(x: jax.Array, cap: float | None) -> jax.Array:
    """cap * tanh(x / cap): nearly x while it is small, never beyond the cap (arXiv 2408.00118, section 2)."""
    return x if cap is None else cap * jnp.tanh(x / cap)
