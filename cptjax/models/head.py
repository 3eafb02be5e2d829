"""The decoder's head: hidden states to logits, or straight to losses with no logits in between."""

import jax
import jax.numpy as jnp
from flax import nnx

from cptjax.kernels.linear_cross_entropy import TokenLosses, linear_cross_entropy
from cptjax.models.config import DecoderConfig
from cptjax.models.norms import soft_capped
from cptjax.models.numerics import Numerics
from cptjax.models.products import contract
from cptjax.models.weights import VOCABULARY_DEVIATION, normal, padded, weight
from cptjax.sharding.rules import constrain


class Head(nnx.Module):
    """The output projection of an untied model."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        dimensions = [("hidden", config.embedding_width or config.hidden), ("vocabulary", config.vocabulary_rows)]
        self.kernel = weight(rngs, None, dimensions, padded(normal(VOCABULARY_DEVIATION), 1, config.vocabulary))


def head_logits(
    hidden: jax.Array, kernel: jax.Array, vocabulary_axis: int, config: DecoderConfig, numerics: Numerics
) -> jax.Array:
    """[batch, length, width] -> float32 [batch, length, vocabulary_rows]; those of padding are -inf.

    kernel: an untied head's (vocabulary_axis 1), or the embedding table (0).
    """
    logits = contract(hidden, kernel if vocabulary_axis else kernel.T, 1, numerics, result="float32")
    logits = soft_capped(logits, config.logit_soft_cap)
    if config.padded_vocabulary is not None:
        rows = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        logits = jnp.where(rows < config.vocabulary, logits, -jnp.inf)
    return constrain(logits, "batch", "sequence", "vocabulary")


def head_losses(
    hidden: jax.Array,
    kernel: jax.Array,
    vocabulary_axis: int,
    targets: jax.Array,
    weights: jax.Array,
    config: DecoderConfig,
    numerics: Numerics,
) -> TokenLosses:
    """The losses of int32 [batch, length] targets under the same logits, each times its weight."""
    return linear_cross_entropy(
        hidden.astype(numerics.compute_dtype),
        kernel,
        targets,
        weights=weights,
        vocabulary_axis=vocabulary_axis,
        vocabulary=config.vocabulary,
        soft_cap=config.logit_soft_cap,
    )
