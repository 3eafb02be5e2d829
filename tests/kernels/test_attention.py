"""Attention against a float64 definition, and its promise that documents cannot see each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import attention
from cptjax.kernels.attention.reference import reference_attention


def definition(query, key, value, segment_ids, causal, window, soft_cap, scale):
    """Attention pair by pair, in float64."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    out = np.zeros_like(query)
    batch, length, heads, _ = query.shape
    for b, i, h in np.ndindex(batch, length, heads):
        shared = h // (heads // key.shape[2])
        seen = [
            j
            for j in range(length)
            if segment_ids[b, i] == segment_ids[b, j]
            and (j <= i or not causal)
            and (window is None or abs(i - j) < window)
        ]
        scores = key[b, seen, shared] @ query[b, i, h] * scale
        scores = scores if soft_cap is None else soft_cap * np.tanh(scores / soft_cap)
        shares = np.exp(scores - scores.max())
        out[b, i, h] = shares / shares.sum() @ value[b, seen, shared]
    return out


def random_inputs(seed, batch, length, heads, kv_heads, head_dim, documents=3):
    rng = np.random.default_rng(seed)
    shape = (batch, length, heads, head_dim), (batch, length, kv_heads, head_dim), (batch, length, kv_heads, head_dim)
    arrays = [jnp.asarray(rng.normal(size=size), jnp.float32) for size in shape]
    # Contiguous documents, the last of them padding (segment 0).
    segments = np.sort(rng.integers(1, documents + 2, (batch, length)), axis=1) % (documents + 1)
    return (*arrays, jnp.asarray(segments, jnp.int32))


# One piece; unrolled chunks; a loop over chunks (with a remainder, and not).
WAYS = [{"chunk": 512}, {"chunk": 8}, {"chunk": 5}, {"chunk": 8, "unrolled": 0}, {"chunk": 5, "unrolled": 0}]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    length=st.sampled_from([1, 7, 13]),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 3, 20]),
    soft_cap=st.sampled_from([None, 2.0]),
    way=st.sampled_from(WAYS),
)
def test_equals_the_definition(seed, length, heads, causal, window, soft_cap, way):
    inputs = random_inputs(seed, 2, length, *heads, 4)
    masks = {"causal": causal, "window": window, "soft_cap": soft_cap, "scale": 0.5}
    *arrays, segment_ids = inputs
    out = reference_attention(*arrays, segment_ids=segment_ids, **way, **masks)
    np.testing.assert_allclose(out, definition(*inputs, **masks), atol=2e-6)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_changing_one_document_changes_no_bit_of_another(way, window):
    """Outputs of B and gradients of a loss on B, before and after every token of A was replaced by something huge."""
    query, key, value, _ = random_inputs(0, 1, 30, 4, 2, 8)
    segment_ids = jnp.asarray([[1] * 11 + [2] * 13 + [0] * 6])
    of_b = (segment_ids == 2)[:, :, None, None]

    @jax.jit
    def outputs_and_gradients(query, key, value):
        def loss(query, key, value):
            masks = {"causal": True, "window": window, "soft_cap": None, "scale": 0.3}
            out = reference_attention(query, key, value, segment_ids=segment_ids, **way, **masks)
            return jnp.sum(jnp.where(of_b, jnp.sin(out), 0.0)), out

        (_, out), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(query, key, value)
        return out, gradients

    before, gradients_before = outputs_and_gradients(query, key, value)
    after, gradients_after = outputs_and_gradients(*(jnp.where(of_b, x, 1e3 * x + 7) for x in (query, key, value)))
    assert np.array_equal(np.asarray(before)[0, 11:24], np.asarray(after)[0, 11:24])
    assert not np.array_equal(np.asarray(before)[0, :11], np.asarray(after)[0, :11])
    for first, second in zip(gradients_before, gradients_after, strict=True):
        assert np.array_equal(first, second)
        assert np.all(np.asarray(first)[0, :11] == 0) and np.all(np.asarray(first)[0, 24:] == 0)
    assert np.isfinite(np.asarray(after)).all()


@pytest.mark.parametrize("window", [None, 3, 9])
@pytest.mark.parametrize("way", WAYS[1:], ids=str)
def test_chunks_change_neither_values_nor_gradients(way, window):
    query, key, value, segment_ids = random_inputs(1, 2, 22, 4, 2, 8)

    def gradients(way):
        masks = {"causal": True, "window": window, "soft_cap": 5.0, "scale": 0.3}

        def loss(*arrays):
            return jnp.sum(jnp.sin(reference_attention(*arrays, segment_ids=segment_ids, **way, **masks)))

        return jax.value_and_grad(loss, (0, 1, 2))(query, key, value)

    for whole, chunked in zip(jax.tree.leaves(gradients(WAYS[0])), jax.tree.leaves(gradients(way)), strict=True):
        np.testing.assert_allclose(whole, chunked, rtol=1e-5, atol=1e-6)


def test_memory_of_long_rows_grows_with_the_length_not_its_square():
    """Forward and backward: no array of the compiled program has two axes of the row's length."""

    def loss(query, key, value, segment_ids):
        return jnp.sum(attention(query, key, value, segment_ids=segment_ids))

    bytes_of = {}
    for length in (8192, 16384):
        shape = jax.ShapeDtypeStruct((1, length, 2, 4), jnp.float32)
        segments = jax.ShapeDtypeStruct((1, length), jnp.int32)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, shape, shape, segments).compile()
        assert f"{length},{length}" not in compiled.as_text()
        bytes_of[length] = compiled.memory_analysis().temp_size_in_bytes
    assert bytes_of[16384] < 2.1 * bytes_of[8192]


def test_bfloat16_keeps_its_dtype_and_a_float32_softmax():
    query, key, value, segment_ids = random_inputs(2, 1, 16, 4, 2, 8)
    exact = attention(query, key, value, segment_ids=segment_ids)
    rounded = attention(*(x.astype(jnp.bfloat16) for x in (query, key, value)), segment_ids=segment_ids)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.03)


def test_an_unknown_implementation_is_refused_by_name():
    query, key, value, segment_ids = random_inputs(3, 1, 4, 2, 2, 4)
    with pytest.raises(ConfigurationError, match="'splash'.*auto, reference"):
        attention(query, key, value, segment_ids=segment_ids, implementation="splash")


def test_shapes_that_do_not_fit_are_refused():
    query, key, value, segment_ids = random_inputs(3, 1, 4, 3, 2, 4)
    with pytest.raises(ValueError, match="do not fit"):
        attention(query, key, value, segment_ids=segment_ids)
