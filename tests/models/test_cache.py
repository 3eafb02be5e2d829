"""One token at a time, against kept keys and values, the logits are those of the whole sequence at once."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.cache import empty_cache, extend, fill
from cptjax.models.config import DecoderConfig, Llama3Rope, YarnRope
from cptjax.models.model import initialize, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

SMALL = {"vocabulary": 61, "hidden": 32, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp": 48}
BIASED = {"query_key_value_bias": True, "output_bias": True, "mlp_bias": True}
CONFIGS = {
    "grouped queries": DecoderConfig(**SMALL),
    "one key head, tied": DecoderConfig(**SMALL | {"kv_heads": 1}, tied_embeddings=True),
    "a key head each, biases": DecoderConfig(**SMALL | {"kv_heads": 4}, **BIASED),
    "window": DecoderConfig(**SMALL, windows=(5,)),
    "window of one": DecoderConfig(**SMALL, windows=(1,)),
    "pattern of windows": DecoderConfig(**SMALL, windows=(None, 3), tied_embeddings=True, **BIASED),
    "pattern as deep as the model": DecoderConfig(**SMALL, windows=(3, None, 7, 2)),
    "stretched positions": DecoderConfig(**SMALL | {"head_dim": 6}, rope_scaling=Llama3Rope(8.0, 1.0, 4.0, 8)),
    "heads normalised, local positions, caps": DecoderConfig(
        **SMALL,
        windows=(3, None),
        query_key_norm="head",
        window_rope_theta=100.0,
        rope_scaling=YarnRope(4.0, 8),
        attention_scale=0.5,
        attention_soft_cap=0.7,
        logit_soft_cap=2.0,
        embedding_scale=5.0,
    ),
    "norms after, of projections": DecoderConfig(**SMALL, norm_placement="after", query_key_norm="projection"),
    "experts, some layers without": DecoderConfig(
        **SMALL,
        windows=(None, 5),
        experts=4,
        experts_per_token=2,
        expert_mlp=12,
        dense_layers=(True, False),
    ),
    "parallel, part of a head turned": DecoderConfig(
        **SMALL, norm="layer", gated_mlp=False, parallel_residual=True, rotary_fraction=0.5
    ),
    "learned positions, norms of sums, narrow embedding": DecoderConfig(
        **SMALL, norm="layer", norm_placement="sum", positions="learned", position_offset=2, embedding_width=12
    ),
}
BATCH, LENGTH = 3, 20
EXTEND, FILL, WHOLE = (jax.jit(function, static_argnames=("config", "numerics")) for function in (extend, fill, logits))


def parameters(config, mesh):
    """Every weight random: drawn as it is, a decoder's biases are 0 and its norms 1."""
    rng = np.random.default_rng(7)
    return {
        name: array + 0.1 * rng.normal(size=array.shape).astype(np.float32)
        for name, array in initialize(config, 0, mesh).items()
    }


def all_logits(params, config, numerics, tokens, filled, length):
    """Logits after each place from `filled` on, by the cache."""
    cache = empty_cache(config, numerics, len(tokens), length)
    if filled:
        cache = FILL(params, config, numerics, cache, tokens[:, :filled])
    found = []
    for place in range(filled, tokens.shape[1]):
        step, cache = EXTEND(params, config, numerics, cache, tokens[:, place], place)
        found.append(step)
    return np.stack(found, axis=1)


@pytest.mark.parametrize("filled", [0, 8])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_the_whole_sequence(name, filled):
    config, numerics = CONFIGS[name], Numerics()
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    params = parameters(config, mesh)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocabulary, (BATCH, LENGTH)))
    positions = jnp.tile(jnp.arange(LENGTH), (BATCH, 1))
    whole = np.asarray(WHOLE(params, config, numerics, tokens, positions, jnp.ones_like(tokens)))
    assert np.abs(whole).max() > 0.5
    found = all_logits(
        params, config, numerics, tokens, filled, 32 if filled else LENGTH
    )  # with and without room to spare
    np.testing.assert_allclose(found, whole[:, filled:], atol=1e-5)


def test_sequences_of_a_batch_may_stand_at_different_places():
    """Each is read at once up to a length of its own, with padding behind it, and then goes on: as if it were alone."""
    config, numerics = CONFIGS["pattern of windows"], Numerics()
    params = parameters(config, build_mesh({"fsdp": 1}, jax.devices()[:1]))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocabulary, (BATCH, LENGTH)))
    positions = jnp.tile(jnp.arange(LENGTH), (BATCH, 1))
    whole = np.asarray(WHOLE(params, config, numerics, tokens, positions, jnp.ones_like(tokens)))
    begins = np.array([1, 7, 4])
    padded = jnp.where(jnp.arange(8) < begins[:, None], tokens[:, :8], 3)
    cache = FILL(params, config, numerics, empty_cache(config, numerics, BATCH, LENGTH), padded)
    for step in range(LENGTH - begins.max()):
        places = begins + step
        found, cache = EXTEND(params, config, numerics, cache, tokens[np.arange(BATCH), places], jnp.asarray(places))
        np.testing.assert_allclose(found, whole[np.arange(BATCH), places], atol=1e-5)


def test_layers_unrolled_or_in_bfloat16_remain_the_same_model():
    config = CONFIGS["pattern of windows"]
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    params = initialize(config, 0, mesh)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocabulary, (BATCH, LENGTH)))
    exact = all_logits(params, config, Numerics(), tokens, 4, LENGTH)
    unrolled = all_logits(params, config, Numerics(scan_layers=False), tokens, 4, LENGTH)
    np.testing.assert_allclose(unrolled, exact, atol=1e-5)
    rounded = all_logits(params, config, Numerics("bfloat16"), tokens, 4, LENGTH)
    assert rounded.dtype == np.float32 and 1e-4 < np.abs(rounded - exact).max() < 0.05


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"replica": 2, "tensor": 2, "context": 2}, {"fsdp": 2, "tensor": 4}])
def test_a_mesh_gives_the_same_logits(sizes):
    config = CONFIGS["pattern of windows"]
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocabulary, (8, LENGTH)))
    found = {}
    for shape in ({"fsdp": 1}, sizes):
        mesh = build_mesh(shape, jax.devices()[: math.prod(shape.values())])
        params = initialize(config, 0, mesh)
        with jax.set_mesh(mesh):
            found[len(found)] = all_logits(params, config, Numerics(), tokens, 4, 32)
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_nothing_that_stands_beyond_a_token_reaches_it():
    config, numerics = CONFIGS["grouped queries"], Numerics()
    params = initialize(config, 0, build_mesh({"fsdp": 1}, jax.devices()[:1]))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocabulary, (BATCH, LENGTH)))
    fresh = FILL(params, config, numerics, empty_cache(config, numerics, BATCH, LENGTH), tokens[:, :6])
    used = jax.tree.map(lambda kept: kept.at[:, :, 6:].set(1e4), fresh)
    outs = [EXTEND(params, config, numerics, cache, tokens[:, 6], 6)[0] for cache in (used, fresh)]
    assert np.array_equal(*outs)


def test_a_cache_beyond_the_learned_positions_is_refused():
    config = DecoderConfig(**SMALL, positions="learned", maximum_length=16)
    empty_cache(config, Numerics(), BATCH, 16)
    with pytest.raises(ConfigurationError, match="17 tokens: this model has learned positions for 16"):
        empty_cache(config, Numerics(), BATCH, 17)
    tokens = jnp.zeros((1, 17), jnp.int32)
    params = initialize(config, 0, build_mesh({"fsdp": 1}, jax.devices()[:1]))
    with pytest.raises(ConfigurationError, match="learned positions for 16"):
        logits(params, config, Numerics(), tokens, tokens, tokens)
