"""What any layer makes of a text: the residual stream behind it, as `transformers` gives it in `hidden_states`."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from cptjax.errors import ConfigurationError
from cptjax.models.attending import attend_within_documents
from cptjax.models.config import DecoderConfig
from cptjax.models.decoder import check_reach
from cptjax.models.model import Params, bind
from cptjax.models.numerics import Numerics
from cptjax.models.rope import rotary

POOLINGS = ("last", "mean")


def layer_number(config: DecoderConfig, layer: int) -> int:
    """`layer`, counted from 0 (the embeddings) to the last one; -1 is the last, as in a list.

    Raises:
        ConfigurationError: the model has no such layer.
    """
    if isinstance(layer, bool) or not isinstance(layer, int) or not -config.layers - 1 <= layer <= config.layers:
        raise ConfigurationError(
            f"LAYER = {layer!r}: this model has the layers 0 (its embeddings) to {config.layers}, or -1 for the last."
        )
    return layer % (config.layers + 1)


def layer_states(
    params: Params,
    config: DecoderConfig,
    numerics: Numerics,
    inputs: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    segment_ids: Int[Array, "batch length"],
    layer: int,
) -> Float[Array, "batch length hidden"]:
    """The states behind layer `layer` (of `layer_number`), in the compute dtype; those of the last one normalised.

    Only the layers up to it are computed. 0: what the first layer reads.
    """
    decoder = bind(params, config, numerics)
    check_reach(config, inputs.shape[1], "texts of")
    attend = attend_within_documents(config, numerics, segment_ids)
    x = decoder.embed(inputs, positions)
    angles = rotary(config, positions)
    definitions, weights = decoder.stacks()

    def through(x: jax.Array, states: tuple[nnx.State, ...]) -> jax.Array:
        """As many positions of the pattern as there are states."""
        for definition, state, turn in zip(definitions, states, angles, strict=False):
            x = nnx.merge(definition, state)(x, turn, attend, numerics)
        return x

    whole, more = divmod(layer, len(definitions))
    if whole:
        below = jax.tree.map(lambda stacked: stacked[:whole], weights)
        x, _ = jax.lax.scan(lambda x, states: (through(x, states), None), x, below, unroll=not numerics.scan_layers)
    if more:
        x = through(x, jax.tree.map(lambda stacked: stacked[whole], weights[:more]))
    return decoder.finish(x) if layer == config.layers else x


def pooled(
    states: Float[Array, "batch length hidden"], segment_ids: Int[Array, "batch length"], pooling: str
) -> Float[Array, "batch hidden"]:
    """One float32 vector a row: the state of its last token, or the mean over its tokens (those of segment 1)."""
    count = jnp.sum(segment_ids > 0, axis=1)
    if pooling == "last":
        last = jnp.maximum(count - 1, 0)
        return jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0].astype(jnp.float32)
    within = (segment_ids > 0)[..., None]
    total = jnp.sum(jnp.where(within, states, 0).astype(jnp.float32), axis=1)
    return total / jnp.maximum(count, 1)[:, None]
