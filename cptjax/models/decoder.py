"""The decoder: one Flax NNX module whose config spans the families in `families/`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import LOG_SUM, RESULT
from cptjax.kernels.linear_cross_entropy import TokenLosses
from cptjax.models.attending import attend_within_documents
from cptjax.models.config import DecoderConfig
from cptjax.models.context import balanced, in_order
from cptjax.models.experts import Routing, routing_of
from cptjax.models.head import Head, head_logits, head_losses
from cptjax.models.layers import Layer
from cptjax.models.lookup import look_up
from cptjax.models.norms import stream_norm
from cptjax.models.numerics import Numerics
from cptjax.models.products import PRODUCT, Projection
from cptjax.models.rope import rotary
from cptjax.models.weights import VOCABULARY_DEVIATION, normal, padded, weight
from cptjax.sharding.rules import constrain, stream_is_cut


class Embedding(nnx.Module):
    """Token ids to vectors; transposed, it is the head of a tied model."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        dimensions = [("vocabulary", config.vocabulary_rows), ("hidden", config.embedding_width or config.hidden)]
        self.table = weight(rngs, None, dimensions, padded(normal(VOCABULARY_DEVIATION), 0, config.vocabulary))

    def __call__(self, ids: jax.Array, numerics: Numerics) -> jax.Array:
        """int32 [batch, length] -> [batch, length, embedding width] in the compute dtype."""
        return look_up(self.table[...], ids, numerics.compute_dtype)


class Positions(nnx.Module):
    """A learned vector for each position."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.offset = config.position_offset
        dimensions = [(None, self.offset + config.maximum_length), ("hidden", config.hidden)]
        self.table = weight(rngs, None, dimensions, normal(VOCABULARY_DEVIATION))

    def __call__(self, positions: jax.Array, numerics: Numerics) -> jax.Array:
        """int32 [batch, length] -> [batch, length, hidden] in the compute dtype."""
        table = constrain(self.table[...].astype(numerics.compute_dtype), None, None)
        return jnp.take(table, positions + self.offset, axis=0, mode="clip")


class Pattern(nnx.Module):
    """Layers that differ by position in the repeating window pattern: one stack for each position."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        repeats = config.layers // len(config.windows)
        for position, window in enumerate(config.windows):
            setattr(self, f"pattern_{position}", Layer(config, window, config.mixed_layers[position], repeats, rngs))


class Decoder(nnx.Module):
    """Embedding, layers, final norm and head. Its weights are stacked over layers whether or not it scans them."""

    def __init__(self, config: DecoderConfig, numerics: Numerics, rngs: nnx.Rngs):
        self.config = config
        self.numerics = numerics
        self.embedding = Embedding(config, rngs)
        if len(config.windows) == 1:
            self.layers = Layer(config, config.windows[0], config.mixed_layers[0], config.layers, rngs)
        else:
            self.layers = Pattern(config, rngs)
        # The norm of the last sum is the final one.
        self.final_norm = None if config.norm_placement == "sum" else stream_norm(config, None, rngs)
        self.head = None if config.tied_embeddings else Head(config, rngs)
        self.positions = Positions(config, rngs) if config.positions == "learned" else None
        inside, outside = ("hidden", config.hidden), (None, config.embedding_width)
        wider = config.embedding_width is not None
        self.widen = Projection([outside], [inside], False, None, rngs) if wider else None
        self.narrow = Projection([inside], [outside], False, None, rngs) if wider else None

    def stacks(self) -> tuple[tuple[nnx.GraphDef, ...], tuple[nnx.State, ...]]:
        """For each position in the window pattern its layers: what to merge a slice with, and weights [repeats, ...]."""
        positions = range(len(self.config.windows))
        stacks = [self.layers] if len(positions) == 1 else [getattr(self.layers, f"pattern_{i}") for i in positions]
        definitions, weights = zip(*(nnx.split(stack) for stack in stacks), strict=True)
        return definitions, weights

    def hidden_states(self, inputs: jax.Array, positions: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """int32 [batch, length] each -> the normalised last layer, [batch, length, hidden] in the compute dtype."""
        return self.hidden_states_and_routing(inputs, positions, segment_ids)[0]

    def hidden_states_and_routing(
        self, inputs: jax.Array, positions: jax.Array, segment_ids: jax.Array
    ) -> tuple[jax.Array, Routing | None]:
        """`hidden_states`, and the routing of all layers together, of tokens that are no padding; None without experts."""
        config, numerics = self.config, self.numerics
        check_reach(config, inputs.shape[1], "rows of")
        attend = attend_within_documents(config, numerics, segment_ids, balanced=True)
        inputs, positions, segment_ids = (balanced(array) for array in (inputs, positions, segment_ids))
        x = self.embed(inputs, positions)
        angles = rotary(config, positions)
        definitions, weights = self.stacks()

        def block(x: jax.Array, weights: tuple[nnx.State, ...]) -> tuple[jax.Array, list[Routing]]:
            """One repetition of the pattern."""
            routings: list[Routing] = []

            def tally(probabilities: jax.Array, chosen: jax.Array) -> None:
                routings.append(routing_of(probabilities, chosen, segment_ids > 0))

            for definition, state, turn in zip(definitions, weights, angles, strict=True):
                x = nnx.merge(definition, state)(x, turn, attend, numerics, tally)
            return x, routings

        block = rematerialised(block, numerics)
        if numerics.scan_layers:
            x, routings = jax.lax.scan(block, x, weights)
        else:
            repeats = []
            for repeat in range(config.layers // len(config.windows)):
                x, routed = block(x, jax.tree.map(lambda stacked, i=repeat: stacked[i], weights))
                repeats.append(routed)
            routings = jax.tree.map(lambda *each: jnp.stack(each), *repeats)
        summed = [jax.tree.map(lambda stacked: jnp.sum(stacked, axis=0), routing) for routing in routings]
        routing = jax.tree.map(lambda *each: sum(each), *summed) if summed else None
        return in_order(self.finish(x)), routing

    def embed(self, inputs: jax.Array, positions: jax.Array) -> jax.Array:
        """int32 [batch, length] each -> what the first layer reads, [batch, length, hidden] in the compute dtype."""
        config, numerics = self.config, self.numerics
        x = self.embedding(inputs, numerics)
        if config.embedding_scale is not None:
            x = x * jnp.asarray(config.embedding_scale, x.dtype)
        if self.widen is not None:
            x = self.widen(x, numerics)
        if self.positions is not None:
            x = x + self.positions(positions, numerics)
        return constrain(x, "batch", "stream", None)

    def finish(self, x: jax.Array) -> jax.Array:
        """The last layer's output, normalised, whole for each part of the vocabulary."""
        x = x if self.final_norm is None else self.final_norm(x, self.numerics)
        return constrain(x, "batch", "sequence", None) if stream_is_cut() else x

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[batch, length, hidden] -> float32 [batch, length, vocabulary_rows]; those of padding are -inf."""
        return head_logits(*self._before_the_vocabulary(hidden), self.config, self.numerics)

    def token_losses(self, hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> TokenLosses:
        """[batch, length, hidden] -> losses of the targets, each times its weight; logits are not all made."""
        return head_losses(*self._before_the_vocabulary(hidden), targets, weights, self.config, self.numerics)

    def _before_the_vocabulary(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        """What the head multiplies, what with, and which dimension of that is the vocabulary's."""
        if self.narrow is not None:
            hidden = self.narrow(hidden, self.numerics)
        return (hidden, self.embedding.table[...], 0) if self.head is None else (hidden, self.head.kernel[...], 1)


def check_reach(config: DecoderConfig, length: int, what: str) -> None:
    """Refuses what learned positions do not reach.

    Raises:
        ConfigurationError: longer than the table of positions.
    """
    if config.positions == "learned" and length > config.maximum_length:
        raise ConfigurationError(
            f"{what} {length} tokens: this model has learned positions for {config.maximum_length} and none beyond.\n"
            f"  Make them {config.maximum_length} tokens long at most (SEQUENCE_LENGTH, MAX_NEW_TOKENS)."
        )


def rematerialised(block: Callable, numerics: Numerics) -> Callable:
    """`block` under the named policy of `Numerics.remat`."""
    if numerics.remat == "none":
        return block
    policies = jax.checkpoint_policies
    saved = {
        "full": policies.nothing_saveable,
        "dots": policies.save_from_both_policies(
            policies.dots_saveable, policies.save_only_these_names(PRODUCT, RESULT, LOG_SUM)
        ),
        "dots_without_batch": policies.save_only_these_names(PRODUCT),
        "attention_output": policies.save_only_these_names(RESULT, LOG_SUM),
    }
    # Inside a loop XLA cannot merge the recomputation with the original; unrolled, it must be kept from doing so.
    return jax.checkpoint(block, policy=saved[numerics.remat], prevent_cse=not numerics.scan_layers)
