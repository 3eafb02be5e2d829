"""The forward pass of generation: new tokens against the kept keys and values of those before them.

The layers are the trained decoder's own (`layers.Layer`); only where their attention finds keys and values is different.
All sequences of a batch stand at the same place: place p of the cache holds the token at position p.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from cptjax.kernels.attention import cached_attention
from cptjax.models.attending import attend_within_documents
from cptjax.models.config import DecoderConfig
from cptjax.models.decoder import Decoder, check_reach
from cptjax.models.model import Params, bind
from cptjax.models.numerics import Numerics
from cptjax.models.rope import rotary
from cptjax.sharding.rules import constrain


class Cache(NamedTuple):
    """Keys (turned to their positions) and values, [layers, batch, length, kv_heads, head_dim], in the compute dtype."""

    keys: jax.Array
    values: jax.Array


# (query, key, value, window, the layer's cache without the new tokens) -> what each query reads.
Mix = Callable[[jax.Array, jax.Array, jax.Array, int | None, Cache], jax.Array]


def empty_cache(config: DecoderConfig, numerics: Numerics, batch: int, length: int) -> Cache:
    """A cache for `length` tokens of each of `batch` sequences.

    Raises:
        ConfigurationError: more tokens than the model has learned positions for.
    """
    check_reach(config, length, "a cache for")
    shape = (config.layers, batch, length, config.kv_heads, config.head_dim)
    return _placed(Cache(*(jnp.zeros(shape, numerics.compute_dtype) for _ in Cache._fields)))


def fill(
    params: Params, config: DecoderConfig, numerics: Numerics, cache: Cache, tokens: Int[Array, "batch new"]
) -> Cache:
    """The cache after the first `new` tokens of every sequence, all read at once."""

    attend = attend_within_documents(config, numerics, jnp.ones(tokens.shape, jnp.int32))

    def mix(query, key, value, window, kept):
        return attend(query, key, value, window)

    return _through(bind(params, config, numerics), cache, tokens, 0, mix)[1]


def extend(
    params: Params,
    config: DecoderConfig,
    numerics: Numerics,
    cache: Cache,
    tokens: Int[Array, " batch"],
    place: Int[Array, ""] | int,
) -> tuple[Float[Array, "batch vocabulary"], Cache]:
    """Reads one token of each sequence, at `place`: the float32 logits of the next one, and the cache with this one.

    Args:
        cache: holds the tokens at places 0 to place - 1.
    """

    def mix(query, key, value, window, kept):
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=1)
            for old, new in zip(kept, (key, value), strict=True)
        )
        soft_cap, scale = config.attention_soft_cap, config.attention_scale
        return cached_attention(query, keys, values, start=place, window=window, soft_cap=soft_cap, scale=scale)

    decoder = bind(params, config, numerics)
    hidden, cache = _through(decoder, cache, tokens[:, None], place, mix)
    return decoder.logits(hidden)[:, 0], cache


def _through(
    decoder: Decoder, cache: Cache, tokens: jax.Array, start: jax.Array | int, mix: Mix
) -> tuple[jax.Array, Cache]:
    """Tokens [batch, new] at places start, start + 1, ... through all layers: the normalised last one, and the new cache.

    Layers read the cache and hand out what is new in it, which is written once at the end: a loop over tokens then updates
    it in place.
    """
    config, numerics = decoder.config, decoder.numerics
    positions = start + jnp.arange(tokens.shape[1])[None]
    x = decoder.embed(tokens, positions)
    angles = rotary(config, positions)
    definitions, weights = decoder.stacks()
    pattern = len(definitions)

    def block(x: jax.Array, slices: tuple[tuple[nnx.State, ...], Cache]) -> tuple[jax.Array, Cache]:
        """One repetition of the pattern; the cache's slice is [pattern, batch, ...]."""
        weights, kept = slices
        added: list[Cache] = []

        def attend(query: jax.Array, key: jax.Array, value: jax.Array, window: int | None) -> jax.Array:
            own = Cache(kept.keys[len(added)], kept.values[len(added)])  # layers come one after another
            added.append(Cache(key, value))
            return mix(query, key, value, window, own)

        for definition, state, turn in zip(definitions, weights, angles, strict=True):
            x = nnx.merge(definition, state)(x, turn, attend, numerics)
        return x, jax.tree.map(lambda *each: jnp.stack(each), *added)

    by_pattern = jax.tree.map(lambda array: array.reshape(-1, pattern, *array.shape[1:]), cache)
    x, added = jax.lax.scan(block, x, (weights, by_pattern), unroll=not numerics.scan_layers)

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        by_layer = new.reshape(old.shape[0], *new.shape[2:]).astype(old.dtype)
        return jax.lax.dynamic_update_slice_in_dim(old, by_layer, start, axis=2)

    return decoder.finish(x), _placed(jax.tree.map(write, cache, added))


def _placed(cache: Cache) -> Cache:
    """Cut by sequences and by heads, as the activations it is made of."""
    return jax.tree.map(lambda array: constrain(array, None, "batch", None, "kv_heads", None), cache)
