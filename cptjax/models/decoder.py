"""The decoder: one Flax NNX module whose config spans the families in `families/`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from cptjax.kernels.attention import attention
from cptjax.models.config import DecoderConfig, Numerics
from cptjax.models.layers import ATTENTION_OUTPUT, PRODUCT, Layer, RMSNorm, contract
from cptjax.models.rope import rotary
from cptjax.models.weights import normal, weight
from cptjax.sharding.rules import constrain

# The embedding table and the head start at this deviation, so that the first losses are near log(vocabulary).
VOCABULARY_DEVIATION = 0.02


class Embedding(nnx.Module):
    """Token ids to vectors; transposed, it is the head of a tied model."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        dimensions = [("vocabulary", config.vocabulary), ("hidden", config.hidden)]
        self.table = weight(rngs, None, dimensions, normal(VOCABULARY_DEVIATION))

    def __call__(self, ids: jax.Array, numerics: Numerics) -> jax.Array:
        """int32 [batch, length] -> [batch, length, hidden] in the compute dtype."""
        table = constrain(self.table[...].astype(numerics.compute_dtype), "vocabulary", None)
        return jnp.take(table, ids, axis=0, mode="clip")


class Head(nnx.Module):
    """The output projection of an untied model."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        dimensions = [("hidden", config.hidden), ("vocabulary", config.vocabulary)]
        self.kernel = weight(rngs, None, dimensions, normal(VOCABULARY_DEVIATION))


class Pattern(nnx.Module):
    """Layers that differ by position in the repeating window pattern: one stack for each position."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        repeats = config.layers // len(config.windows)
        for position, window in enumerate(config.windows):
            setattr(self, f"pattern_{position}", Layer(config, window, repeats, rngs))


class Decoder(nnx.Module):
    """Embedding, layers, final norm and head. Its weights are stacked over layers whether or not it scans them."""

    def __init__(self, config: DecoderConfig, numerics: Numerics, rngs: nnx.Rngs):
        self.config = config
        self.numerics = numerics
        self.embedding = Embedding(config, rngs)
        if len(config.windows) == 1:
            self.layers = Layer(config, config.windows[0], config.layers, rngs)
        else:
            self.layers = Pattern(config, rngs)
        self.final_norm = RMSNorm(config, None, rngs)
        self.head = None if config.tied_embeddings else Head(config, rngs)

    def stacks(self) -> tuple[tuple[nnx.GraphDef, ...], tuple[nnx.State, ...]]:
        """For each position in the window pattern its layers: what to merge a slice with, and weights [repeats, ...]."""
        positions = range(len(self.config.windows))
        stacks = [self.layers] if len(positions) == 1 else [getattr(self.layers, f"pattern_{i}") for i in positions]
        definitions, weights = zip(*(nnx.split(stack) for stack in stacks), strict=True)
        return definitions, weights

    def hidden_states(self, inputs: jax.Array, positions: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """int32 [batch, length] each -> the normalised last layer, [batch, length, hidden] in the compute dtype."""
        config, numerics = self.config, self.numerics
        x = constrain(self.embedding(inputs, numerics), "batch", "sequence", None)
        angles = rotary(config, positions)
        definitions, weights = self.stacks()

        def attend(query: jax.Array, key: jax.Array, value: jax.Array, window: int | None) -> jax.Array:
            implementation = numerics.attention
            return attention(query, key, value, segment_ids=segment_ids, window=window, implementation=implementation)

        def block(x: jax.Array, weights: tuple[nnx.State, ...]) -> tuple[jax.Array, None]:
            """One repetition of the pattern."""
            for definition, state in zip(definitions, weights, strict=True):
                x = nnx.merge(definition, state)(x, angles, attend, numerics)
            return x, None

        block = rematerialised(block, numerics)
        if numerics.scan_layers:
            x, _ = jax.lax.scan(block, x, weights)
        else:
            for repeat in range(config.layers // len(config.windows)):
                x, _ = block(x, jax.tree.map(lambda stacked, i=repeat: stacked[i], weights))
        return self.final_norm(x, numerics)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[batch, length, hidden] -> float32 [batch, length, vocabulary]."""
        kernel = self.embedding.table[...].T if self.head is None else self.head.kernel[...]
        logits = contract(hidden, kernel, 1, self.numerics, result="float32")
        return constrain(logits, "batch", "sequence", "vocabulary")


def rematerialised(block: Callable, numerics: Numerics) -> Callable:
    """`block` under the named policy of `Numerics.remat`."""
    if numerics.remat == "none":
        return block
    policies = jax.checkpoint_policies
    saved = {
        "full": policies.nothing_saveable,
        "dots": policies.save_from_both_policies(policies.dots_saveable, policies.save_only_these_names(PRODUCT)),
        "dots_without_batch": policies.save_only_these_names(PRODUCT),
        "attention_output": policies.save_only_these_names(ATTENTION_OUTPUT),
    }
    # Inside a loop XLA cannot merge the recomputation with the original; unrolled, it must be kept from doing so.
    return jax.checkpoint(block, policy=saved[numerics.remat], prevent_cse=not numerics.scan_layers)
