"""Attention against a float64 definition, and its promise that documents cannot see each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_definition import definition, documents, off, sees
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import attention, plan_attention
from cptjax.kernels.attention.intervals import Intervals, visible_keys
from cptjax.kernels.attention.reference import reference_attention


def reference(query, key, value, segment_ids, *, causal, window, **how):
    """Results and log-sums of the reference, for whole rows."""
    known = {"causal": causal, "window": window}
    return reference_attention(query, key, value, visible_keys(segment_ids, causal, window), **known, **how)


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
    *arrays, segment_ids = random_inputs(seed, 2, length, *heads, 4)
    out, log_sum = reference(*arrays, segment_ids, causal=causal, window=window, soft_cap=soft_cap, scale=0.5, **way)
    exact = definition(*arrays, sees(segment_ids, causal, window), soft_cap=soft_cap, scale=0.5)
    np.testing.assert_allclose(out, exact.out, atol=2e-6)
    np.testing.assert_allclose(log_sum, exact.log_sum, atol=2e-6)


@functools.cache
def gradients_of(heads, way, soft_cap):
    """(query, key, value, whom each query sees, cotangents) -> gradients, for `WAYS[way]`; compiled once."""

    @jax.jit
    def gradients(query, key, value, intervals, cotangents):
        results = functools.partial(reference_attention, soft_cap=soft_cap, scale=0.5, **WAYS[way])
        return jax.vjp(lambda *arrays: results(*arrays, intervals), query, key, value)[1](cotangents)

    return gradients


@pytest.mark.parametrize("heads", [(4, 2), (3, 1)], ids=str)
@pytest.mark.parametrize(("way", "soft_cap"), [(0, None), (2, 2.0), (4, None), (4, 2.0)])
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    most=st.sampled_from([1, 4, 13]),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 14),
    loud=st.sampled_from([0.2, 1.0, 5.0]),
)
def test_gradients_of_results_and_log_sums_equal_the_definition(heads, way, soft_cap, seed, most, causal, window, loud):
    """loud: what queries are multiplied by, so that a cap is far away or near."""
    query, key, value, _ = random_inputs(seed, 2, 13, *heads, 4)
    of_out, of_log_sum, _, _ = random_inputs(seed + 1, 2, 13, heads[0], heads[0], 4)
    query, of_log_sum = query * loud, of_log_sum[..., 0]
    segment_ids = documents(np.random.default_rng(seed), 2, 13, most)
    shown = visible_keys(segment_ids, causal, window)
    found = gradients_of(heads, way, soft_cap)(query, key, value, shown, (of_out, of_log_sum))
    how = {"soft_cap": soft_cap, "scale": 0.5, "of_out": of_out, "of_log_sum": of_log_sum}
    exact = definition(query, key, value, sees(segment_ids, causal, window), **how)
    for one, wanted in zip(found, exact[2:5], strict=True):
        assert off(one, wanted) < 2e-5


@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_sinks_take_their_share(soft_cap):
    query, key, value, _ = random_inputs(9, 2, 13, 4, 2, 4)
    of_out, *_ = random_inputs(10, 2, 13, 4, 4, 4)
    sinks = jnp.asarray([-3.0, 0.0, 0.5, 2.0])
    segment_ids = documents(np.random.default_rng(5), 2, 13, 4)

    def results(*arrays):
        return attention(*arrays[:3], segment_ids=segment_ids, soft_cap=soft_cap, scale=0.5, sinks=arrays[3])

    out, gradients = jax.vjp(results, query, key, value, sinks)
    exact = definition(
        query, key, value, sees(segment_ids, True, None), soft_cap=soft_cap, scale=0.5, sinks=sinks, of_out=of_out
    )
    assert off(out, exact.out) < 2e-5
    for found, wanted in zip(gradients(of_out), exact[2:], strict=True):
        assert off(found, wanted) < 2e-5


def test_a_query_that_sees_nothing_is_heeded_by_nobody():
    """As in a ring of devices: such a result and its log-sum are finite, and exp(log_sum) is 0."""
    query, key, value, _ = random_inputs(11, 1, 8, 2, 2, 4)
    nothing = jnp.full((1, 8), 9), jnp.full((1, 8), -1)
    for way in WAYS:
        out, log_sum = reference_attention(query, key, value, Intervals(*nothing), soft_cap=None, scale=0.5, **way)
        assert np.isfinite(out).all() and np.isfinite(log_sum).all() and np.all(np.exp(log_sum) == 0)


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
            out, _ = reference(query, key, value, segment_ids, **way, **masks)
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
            return jnp.sum(jnp.sin(reference(*arrays, segment_ids, **way, **masks)[0]))

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(query, key, value)

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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flash", "'flash'.*there are auto, reference, pallas_tpu, splash"),
        ("cudnn", "knows no segment ids, so packed documents would see each other"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(name, message):
    query, key, value, segment_ids = random_inputs(3, 1, 4, 2, 2, 4)
    with pytest.raises(ConfigurationError, match=message):
        attention(query, key, value, segment_ids=segment_ids, implementation=name)
    with pytest.raises(ConfigurationError, match=message):
        plan_attention(segment_ids, head_dim=4, dtype=query.dtype, implementation=name)


def test_a_plan_of_another_implementation_is_refused():
    query, key, value, segment_ids = random_inputs(3, 1, 4, 2, 2, 4)
    plan = plan_attention(segment_ids, head_dim=4, dtype=query.dtype, implementation="reference")
    with pytest.raises(ValueError, match="the plan is not pallas_tpu's"):
        attention(query, key, value, segment_ids=segment_ids, plan=plan, implementation="pallas_tpu")


def test_shapes_that_do_not_fit_are_refused():
    query, key, value, segment_ids = random_inputs(3, 1, 4, 3, 2, 4)
    with pytest.raises(ValueError, match="do not fit"):
        attention(query, key, value, segment_ids=segment_ids)


def test_a_window_and_sinks_that_do_not_fit_are_refused():
    query, key, value, segment_ids = random_inputs(3, 1, 4, 2, 2, 4)
    with pytest.raises(ValueError, match="window = 0"):
        attention(query, key, value, segment_ids=segment_ids, window=0)
    with pytest.raises(ValueError, match="one for each head"):
        attention(query, key, value, segment_ids=segment_ids, sinks=jnp.zeros(3))
