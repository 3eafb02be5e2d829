"""Several continuations of one text in one forward pass: the text is read once, whatever follows it.

A row holds a text and, behind it, its continuations one after another. Each continuation sees the text and itself: in every
layer its queries read the text's keys and values, made once, and its own, and the two readings are put together by the logs
of their sums (as around a ring, Liu et al., arXiv 2310.01889). Nothing has to be kept from one layer to the next but the row.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cptjax.kernels.attention.intervals import Intervals, visible_keys
from cptjax.kernels.attention.reference import Settings
from cptjax.kernels.attention.reference import attend as attend_to
from cptjax.models.attending import attend_within_documents
from cptjax.models.config import DecoderConfig
from cptjax.models.layers import Attend
from cptjax.models.model import Params, bind
from cptjax.models.numerics import Numerics
from cptjax.models.rope import rotary


def continuation_nats(
    params: Params, config: DecoderConfig, numerics: Numerics, batch: Mapping[str, jax.Array]
) -> Float[Array, "batch targets"]:
    """Nats of each target, float32; 0 where its weight is 0.

    Args:
        batch: int32 `text` [batch, text length] and its `lengths` [batch] (1 at least); `tokens` [batch, rest], what is
            read of the continuations, each token's `continuation` (counted from 1, in runs; 0 is padding) and `offset` from
            the text's end; `targets` [batch, targets], float32 `weights`, and by `reader` which output predicts each: a
            place in the text, or behind its padded end.
    """
    decoder = bind(params, config, numerics)
    text, lengths = batch["text"], batch["lengths"]
    begins = jnp.broadcast_to(jnp.arange(text.shape[1]), text.shape)
    positions = jnp.concatenate([begins, lengths[:, None] + batch["offset"]], axis=1)
    x = decoder.embed(jnp.concatenate([text, batch["tokens"]], axis=1), positions)
    angles = rotary(config, positions)
    attend = _attend_to_text_and_self(config, numerics, text.shape, lengths, batch["continuation"], batch["offset"])
    definitions, weights = decoder.stacks()

    def block(x: jax.Array, weights: tuple[nnx.State, ...]) -> tuple[jax.Array, None]:
        for definition, state, turn in zip(definitions, weights, angles, strict=True):
            x = nnx.merge(definition, state)(x, turn, attend, numerics)
        return x, None

    x, _ = jax.lax.scan(block, x, weights, unroll=not numerics.scan_layers)
    hidden = jnp.take_along_axis(decoder.finish(x), batch["reader"][:, :, None], axis=1)
    return decoder.token_losses(hidden, batch["targets"], batch["weights"]).nats


def _attend_to_text_and_self(
    config: DecoderConfig,
    numerics: Numerics,
    shape: tuple[int, int],
    lengths: jax.Array,
    continuation: jax.Array,
    offset: jax.Array,
) -> Attend:
    """What layers attend by: the text causally, each continuation to the text and, causally, to itself."""
    rows, length = shape
    within = attend_within_documents(config, numerics, jnp.ones(shape, jnp.int32))
    own = {window: visible_keys(continuation, True, window) for window in dict.fromkeys(config.windows)}
    scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    settings = Settings(config.attention_soft_cap, scale, length, length)

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, window: int | None) -> jax.Array:
        (text_query, query), (text_key, key), (text_value, value) = (
            (array[:, :length], array[:, length:]) for array in (query, key, value)
        )
        read = within(text_query, text_key, text_value, window)
        rest = query.shape[1]
        if not rest:
            return read
        query = jnp.moveaxis(query.reshape(rows, rest, config.kv_heads, -1, config.head_dim), 1, 3)
        text_key, text_value, key, value = (jnp.moveaxis(each, 2, 1) for each in (text_key, text_value, key, value))
        ends = jnp.broadcast_to(lengths[:, None], (rows, rest))
        first = jnp.zeros_like(ends) if window is None else jnp.maximum(ends + offset - (window - 1), 0)
        of_text = attend_to(query, text_key, text_value, Intervals(first, ends - 1), jnp.arange(length), settings)
        of_self = attend_to(query, key, value, own[window], jnp.arange(rest), settings)
        # A window may leave nothing of the text in sight: the log of its sum is then so low that its share is 0.
        share = jax.nn.sigmoid(of_text[1] - of_self[1])[..., None]
        mixed = share * of_text[0].astype(jnp.float32) + (1 - share) * of_self[0].astype(jnp.float32)
        mixed = jnp.moveaxis(mixed, 3, 1).reshape(rows, rest, config.heads, config.head_dim)
        return jnp.concatenate([read, mixed.astype(read.dtype)], axis=1)

    return attend
