"""The forward pass of generation: new tokens against the kept keys and values of those before them.

The layers are the trained decoder's own (`layers.Layer`); only where their attention finds keys and values is different.
Place p of a sequence's cache holds its token at position p. Sequences of a batch may stand at different places.
"""

import functools
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
# (what was kept, what is new, the dimension that counts places) -> both.
Write = Callable[[jax.Array, jax.Array, int], jax.Array]


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
    """The cache after the first `new` tokens of every sequence, all read at once.

    Tokens may be padding behind a sequence's end: what the cache then holds is not seen from before it, and is written over.
    """

    attend = attend_within_documents(config, numerics, jnp.ones(tokens.shape, jnp.int32))

    def mix(query, key, value, window, kept):
        return attend(query, key, value, window)

    def write(old, new, axis):
        return jax.lax.dynamic_update_slice_in_dim(old, new, 0, axis)

    positions = jnp.arange(tokens.shape[1])[None]
    return _through(bind(params, config, numerics), cache, tokens, positions, mix, write)[1]


def extend(
    params: Params,
    config: DecoderConfig,
    numerics: Numerics,
    cache: Cache,
    tokens: Int[Array, " batch"],
    place: Int[Array, " batch"] | Int[Array, ""] | int,
) -> tuple[Float[Array, "batch vocabulary"], Cache]:
    """Reads one token of each sequence, at its `place`: the float32 logits of the next one, and the cache with this one.

    Args:
        cache: holds each sequence's tokens at places 0 to place - 1; what stands beyond is not seen.
        place: of each sequence, or of all of them.
    """
    place = jnp.broadcast_to(place, tokens.shape)

    def write(old, new, axis):
        # Without the dimension of sequences, which is the one before that of places.
        one = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=axis - 1)
        return jax.vmap(one, in_axes=(axis - 1, axis - 1, 0), out_axes=axis - 1)(old, new, place)

    def mix(query, key, value, window, kept):
        keys, values = (write(old, new, 1) for old, new in zip(kept, (key, value), strict=True))
        soft_cap, scale = config.attention_soft_cap, config.attention_scale
        return cached_attention(query, keys, values, start=place, window=window, soft_cap=soft_cap, scale=scale)

    decoder = bind(params, config, numerics)
    hidden, cache = _through(decoder, cache, tokens[:, None], place[:, None], mix, write)
    return decoder.logits(hidden)[:, 0], cache


def _through(
    decoder: Decoder, cache: Cache, tokens: jax.Array, positions: jax.Array, mix: Mix, write: Write
) -> tuple[jax.Array, Cache]:
    """Tokens [batch, new] at their positions through all layers: the normalised last one, and the new cache.

    Layers read the cache and hand out what is new in it, which is written once at the end: a loop over tokens then updates
    it in place.
    """
    config, numerics = decoder.config, decoder.numerics
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

    def written(old: jax.Array, new: jax.Array) -> jax.Array:
        return write(old, new.reshape(old.shape[0], *new.shape[2:]).astype(old.dtype), 2)

    return decoder.finish(x), _placed(jax.tree.map(written, cache, added))


def _placed(cache: Cache) -> Cache:
    """Cut by sequences and by heads, as the activations it is made of."""
    return jax.tree.map(lambda array: constrain(array, None, "batch", None, "kv_heads", None), cache)
