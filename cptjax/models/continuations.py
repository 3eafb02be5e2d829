"""Several continuations of one text in one forward pass: the text is read once, whatever follows it.

A row holds texts, each with its continuations behind it, one after another. A continuation sees its text and itself: in every
layer its queries read the text's keys and values, made once for all, and its own. As in a cache, but one that lives for a
single layer: nothing is kept from one layer to the next but the row.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cptjax.kernels.attention.intervals import Intervals, seen, visible_keys
from cptjax.kernels.attention.reference import HIDDEN, PIECES, SMALLEST
from cptjax.models.config import DecoderConfig
from cptjax.models.layers import Attend
from cptjax.models.model import Params, bind
from cptjax.models.norms import soft_capped
from cptjax.models.numerics import Numerics
from cptjax.models.rope import rotary


def continuation_nats(
    params: Params, config: DecoderConfig, numerics: Numerics, batch: Mapping[str, jax.Array]
) -> Float[Array, "rows targets"]:
    """Nats of each target, float32; 0 where its weight is 0.

    Args:
        batch: int32 [rows, length] `inputs`; their `positions` in what they continue; `runs`, equal within a text and within
            a continuation, other next to it (0 is padding); `first` and `last`, the places in the row of the text that a
            token continues (`last` is before `first` in the texts themselves). And [rows, targets] `targets`, float32
            `weights`, and `reader`, the place whose output predicts each.
    """
    decoder = bind(params, config, numerics)
    x = decoder.embed(batch["inputs"], batch["positions"])
    angles = rotary(config, batch["positions"])
    attend = _attend_to_text_and_self(config, batch)
    definitions, weights = decoder.stacks()

    def block(x: jax.Array, weights: tuple[nnx.State, ...]) -> tuple[jax.Array, None]:
        for definition, state, turn in zip(definitions, weights, angles, strict=True):
            x = nnx.merge(definition, state)(x, turn, attend, numerics)
        return x, None

    x, _ = jax.lax.scan(block, x, weights, unroll=not numerics.scan_layers)
    hidden = jnp.take_along_axis(decoder.finish(x), batch["reader"][:, :, None], axis=1)
    return decoder.token_losses(hidden, batch["targets"], batch["weights"]).nats


def _attend_to_text_and_self(config: DecoderConfig, batch: Mapping[str, jax.Array]) -> Attend:
    """What layers attend by, in plain JAX on every platform: each run causally to itself, continuations also to their text."""
    first, last, positions = batch["first"], batch["last"], batch["positions"]
    seen_by_window = {}
    for window in dict.fromkeys(config.windows):
        nearest = first if window is None else jnp.maximum(first, first + positions - (window - 1))
        seen_by_window[window] = (visible_keys(batch["runs"], True, window), Intervals(nearest, last))

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, window: int | None) -> jax.Array:
        return _attention(query, key, value, *seen_by_window[window], config)

    return attend


def _attention(
    query: jax.Array, key: jax.Array, value: jax.Array, own: Intervals, text: Intervals, config: DecoderConfig
) -> jax.Array:
    """What [batch, length, heads, head_dim] queries read of the keys in either interval, none of which are after them.

    As `kernels.attention.reference` does it, a piece of the queries at a time, against the keys up to the piece's end.
    """
    batch, length, heads, head_dim = query.shape
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    scale = head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    key, value = jnp.moveaxis(key, 2, 1), jnp.moveaxis(value, 2, 1)
    query = jnp.moveaxis(query.reshape(batch, length, config.kv_heads, -1, head_dim), 1, 3)
    piece = max(SMALLEST, -(-length // PIECES))
    read = []
    for start in range(0, length, piece):
        stop = min(length, start + piece)
        scores = jnp.einsum(
            "bkgqd,bksd->bkgqs",
            query[:, :, :, start:stop],
            key[:, :, :stop],
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        scores = soft_capped(scores * scale, config.attention_soft_cap)
        in_either = [
            seen(Intervals(*(bound[:, start:stop] for bound in each)), jnp.arange(stop)) for each in (own, text)
        ]
        scores = jnp.where((in_either[0] | in_either[1])[:, None, None], scores, HIDDEN)
        shares = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = jnp.einsum(
            "bkgqs,bksd->bkgqd",
            shares.astype(value.dtype),
            value[:, :, :stop],
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        read.append((mixed / shares.sum(axis=-1, keepdims=True)).astype(query.dtype))
    return jnp.moveaxis(jnp.concatenate(read, axis=3), 3, 1).reshape(batch, length, heads, head_dim)
