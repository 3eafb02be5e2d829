"""The decoder's head: hidden states to logits, or straight to losses with no logits in between."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from cptjax.kernels.head_cuts import ALONE, MeshCut
from cptjax.kernels.linear_cross_entropy import TokenLosses, linear_cross_entropy
from cptjax.models.config import DecoderConfig
from cptjax.models.norms import soft_capped
from cptjax.models.numerics import Numerics
from cptjax.models.products import contract
from cptjax.models.weights import VOCABULARY_DEVIATION, normal, padded, weight
from cptjax.sharding.rules import constrain, is_cut, partition_spec


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


def cut_over_mesh(tokens: Sequence[int], kernel: Sequence[int], vocabulary_axis: int) -> MeshCut:
    """The cut over the mesh in force (`jax.set_mesh`), by the table of sharding.rules.

    Args:
        tokens: the targets' shape: [batch], [batch, length], or with more dimensions, which are not cut.
        kernel: the kernel's shape.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not is_cut():
        return ALONE[vocabulary_axis]
    names = ("batch", "sequence", *(None,) * len(tokens))[: len(tokens)]
    of_tokens = partition_spec(mesh, names, tokens)
    of_kernel = partition_spec(mesh, ("hidden", "vocabulary") if vocabulary_axis else ("vocabulary", "hidden"), kernel)
    token_axes = tuple(axis for entry in of_tokens for axis in _axes(entry))
    width_axes = _axes(of_kernel[1 - vocabulary_axis])
    if not set(width_axes) <= set(token_axes):  # devices with the same tokens: nothing to sum, so nothing to hand back
        width_axes = ()
        of_kernel = PartitionSpec(*(entry if i == vocabulary_axis else None for i, entry in enumerate(of_kernel)))
    vocabulary_axes = _axes(of_kernel[vocabulary_axis])
    return MeshCut(mesh, of_tokens, of_kernel, token_axes, vocabulary_axes, width_axes, 1 - vocabulary_axis)


def _axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """A dimension's mesh axes."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


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
        cut=cut_over_mesh(targets.shape, kernel.shape, vocabulary_axis),
    )
