"""The TPU kernels, interpreted, against the float64 definition; and each implementation's promise that documents are apart."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_definition import definition, documents, off, sees
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import interpreted

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import attention
from cptjax.kernels.attention.block_sizes import BlockSizes
from cptjax.kernels.attention.intervals import Intervals, visible_keys
from cptjax.kernels.attention.plan import plan_intervals
from cptjax.kernels.attention.reference import reference_attention
from cptjax.kernels.attention.scores import Scaling
from cptjax.kernels.attention.splash import splash_attention
from cptjax.kernels.attention.tpu import tpu_attention

TOLERANCES = {"float32": 2e-5, "bfloat16": 2e-2}  # relative in norm


@dataclasses.dataclass(frozen=True)
class Case:
    """What a compiled program is made for; documents, windows, causality and numbers are data, and differ from call to call."""

    length: int
    heads: int
    kv_heads: int
    head_dim: int
    sizes: BlockSizes
    dtype: str = "float32"
    soft_cap: float | None = None
    sinks: bool = False
    batch: int = 1


# Few, since each compiles for seconds. Between them: groups of 1, 2, 3 and 4 heads; head dimensions that are filled up, that fill
# half a register, a whole one and two; lengths that no block divides; one part of the keys and several, of one block and of two.
CASES = {
    "several parts": Case(300, 2, 1, 64, BlockSizes(128, 128, 256, 128, 128, 128), batch=2),
    "cap, bfloat16": Case(384, 4, 1, 80, BlockSizes(128, 256, 256, 256, 128, 384), "bfloat16", soft_cap=3.0),
    "one head": Case(260, 1, 1, 128, BlockSizes(256, 128, 128, 128, 256, 512)),
    "sinks, bfloat16": Case(300, 2, 2, 64, BlockSizes(128, 128, 384, 128, 128, 256), "bfloat16", sinks=True),
    "groups of three, two registers, cap": Case(
        200, 3, 1, 256, BlockSizes(128, 128, 256, 128, 128, 256), soft_cap=20.0
    ),
    "cap and sinks": Case(200, 4, 2, 64, BlockSizes(256, 256, 256, 256, 256, 256), soft_cap=3.0, sinks=True),
}


@functools.cache
def compiled(case):
    """(query, key, value, sinks, cotangent, whom each query sees) -> the result, and the gradients of the first three or four."""

    @jax.jit
    def results(query, key, value, sinks, of_out, intervals):
        plan = plan_intervals(intervals, case.length, case.sizes)
        ours = {"soft_cap": case.soft_cap, "plan": plan, "implementation": "pallas_tpu"}
        unused = jnp.zeros(query.shape[:2], jnp.int32)  # segment ids: the plan says all that they would

        def attend(query, key, value, sinks):
            return attention(query, key, value, segment_ids=unused, sinks=sinks, **ours)

        out, gradients = jax.vjp(attend, query, key, value, sinks)
        return out, [gradient for gradient in gradients(of_out) if gradient is not None]

    return results


def numbers(case, rng):
    """Query, key, value, sinks and the result's cotangent."""
    shapes = [(case.batch, case.length, heads, case.head_dim) for heads in (case.heads, case.kv_heads, case.kv_heads)]
    query, key, value, of_out = (jnp.asarray(rng.normal(size=size), case.dtype) for size in (*shapes, shapes[0]))
    return query, key, value, jnp.asarray(rng.normal(size=case.heads), jnp.float32) if case.sinks else None, of_out


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=3)
@given(
    seed=st.integers(0, 2**31),
    most=st.sampled_from([1, 3, 40]),
    causal=st.booleans(),
    window=st.none()
    | st.integers(2, 400),  # of one token alone the scores' gradient is 0, and nothing is relative to that
    loud=st.sampled_from([0.1, 1.0, 4.0]),
)
def test_the_kernels_equal_the_definition(name, seed, most, causal, window, loud):
    """Results and all gradients, without a race, a read out of bounds, or a read of what was not written.

    loud: what queries are multiplied by. A cap c of scores s is c * tanh(s / c): louder queries are a tighter cap.
    """
    case, rng = CASES[name], np.random.default_rng(seed)
    query, key, value, sinks, of_out = numbers(case, rng)
    query = (query * loud).astype(query.dtype)
    segment_ids = documents(rng, case.batch, case.length, most)
    intervals = visible_keys(segment_ids, causal, window)
    with interpreted():
        out, gradients = jax.block_until_ready(compiled(case)(query, key, value, sinks, of_out, intervals))
    assert out.dtype == query.dtype and gradients[0].dtype == query.dtype
    exact = definition(
        query,
        key,
        value,
        sees(segment_ids, causal, window),
        soft_cap=case.soft_cap,
        scale=case.head_dim**-0.5,
        sinks=sinks,
        of_out=of_out,
    )
    assert off(out, exact.out) < TOLERANCES[case.dtype]
    for found, wanted in zip(gradients, exact[2:], strict=sinks is not None):
        assert off(found, wanted) < TOLERANCES[case.dtype]


def test_gradients_of_log_sums_equal_the_definition():
    """What a ring of devices joins its parts by. A query that sees nothing gives and gets nothing."""
    sizes, rng = BlockSizes(128, 128, 128, 128, 128, 256), np.random.default_rng(0)
    query, key, value, of_out = (jnp.asarray(rng.normal(size=(1, 200, 2, 64)), jnp.float32) for _ in range(4))
    of_log_sum = jnp.asarray(rng.normal(size=(1, 200, 2)), jnp.float32)
    segment_ids = documents(rng, 1, 200, 3)
    blind = jnp.arange(200) < 140

    @jax.jit
    def results(query, key, value, of_out, of_log_sum):
        first, last = visible_keys(segment_ids, True, None)
        plan = plan_intervals(Intervals(first, jnp.where(blind, -1, last)), 200, sizes)

        def attend(*arrays):
            return tpu_attention(*arrays, plan, Scaling(0.125, None), "v5e")

        found, gradients = jax.vjp(attend, query, key, value)
        return *found, *gradients((of_out, of_log_sum))

    with interpreted():
        out, log_sum, *gradients = jax.block_until_ready(results(query, key, value, of_out, of_log_sum))
    assert np.all(out[:, :140] == 0) and np.all(np.exp(log_sum[:, :140]) == 0) and np.isfinite(log_sum).all()
    # Of those that see something, by the definition; of the others everything is 0.
    reads, sums = jnp.where(blind[:, None, None], 0.0, of_out), jnp.where(blind[:, None], 0.0, of_log_sum)
    seen = sees(segment_ids, True, None)
    exact = definition(query, key, value, seen, soft_cap=None, scale=0.125, of_out=reads, of_log_sum=sums)
    assert off(out[:, 140:], exact.out[:, 140:]) < 2e-5 and off(log_sum[:, 140:], exact.log_sum[:, 140:]) < 2e-5
    for found, wanted in zip(gradients, exact[2:5], strict=True):
        assert off(found, wanted) < 2e-5


def test_runs_side_by_side_attend_as_each_does_alone():
    """vmap over arrays and documents: results and gradients are bit for bit those of each run."""
    sizes, rng = BlockSizes(128, 128, 128, 128, 128, 128), np.random.default_rng(0)
    query, key, value, of_out = (jnp.asarray(rng.normal(size=(3, 2, 256, 2, 64)), jnp.float32) for _ in range(4))
    segment_ids = jnp.stack([documents(rng, 2, 256, most) for most in (1, 4, 30)])

    def results(query, key, value, of_out, segment_ids):
        plan = plan_intervals(Intervals(*visible_keys(segment_ids, True, None)), 256, sizes)

        def attend(*arrays):
            return tpu_attention(*arrays, plan, Scaling(0.125, None), "v5e", sums=False)[0]

        out, gradients = jax.vjp(attend, query, key, value)
        return out, *gradients(of_out)

    arrays = query, key, value, of_out, segment_ids
    with interpreted():
        found = jax.block_until_ready(jax.jit(jax.vmap(results))(*arrays))
    for run in range(3):
        with interpreted():
            alone = jax.block_until_ready(jax.jit(results)(*(array[run] for array in arrays)))
        assert all(np.array_equal(mine[run], theirs) for mine, theirs in zip(found, alone, strict=True))


def test_documents_and_windows_change_without_another_compilation():
    case, rng = CASES["several parts"], np.random.default_rng(0)
    with interpreted():
        for most, window in ((1, None), (30, 50)):
            intervals = visible_keys(documents(rng, case.batch, case.length, most), True, window)
            jax.block_until_ready(compiled(case)(*numbers(case, rng), intervals))
    assert compiled(case)._cache_size() == 1


# --- Documents are apart, whatever computes them ---


@functools.cache
def plain(name, window):
    """As `compiled`, of the reference or of splash, whose interpreter is that of all Pallas kernels."""

    @jax.jit
    def results(query, key, value, sinks, of_out, segment_ids):
        def attend(*arrays):
            masks = {"causal": True, "window": window, "soft_cap": 3.0, "scale": 0.2}
            if name == "splash":
                return splash_attention(*arrays, segment_ids, interpret=True, **masks)
            return reference_attention(*arrays, visible_keys(segment_ids, True, window), **masks)[0]

        out, gradients = jax.vjp(attend, query, key, value)
        return out, list(gradients(of_out))

    return results


PLAIN = Case(256, 2, 1, 64, CASES["cap and sinks"].sizes)
# Whether causal, and the window.
SEEN = [(True, None), (True, 70), (False, None), (False, 50), (True, 60), (True, None)]
LEAKS = [
    *((name, case, *seen) for (name, case), seen in zip(CASES.items(), SEEN, strict=True)),
    *((name, PLAIN, True, window) for name in ("reference", "splash") for window in (None, 70)),
]


@pytest.mark.parametrize(
    ("name", "case", "causal", "window"), LEAKS, ids=[f"{name}, {seen}" for name, _, *seen in LEAKS]
)
@pytest.mark.parametrize("all_tokens", [True, False], ids=["all tokens", "one token"])
def test_changing_one_document_changes_no_bit_of_another(name, case, causal, window, all_tokens):
    """Queries, keys, values and the cotangent of others in the same blocks become something huge, everywhere or in one token."""
    rng = np.random.default_rng(0)
    before = numbers(case, rng)
    begin, end = 70, 150
    segment_ids = jnp.full((case.batch, case.length), 3, jnp.int32).at[:, begin:end].set(1).at[:, end + 30 :].set(0)
    others = (jnp.arange(case.length) < begin) | (jnp.arange(case.length) >= end)
    changed = others if all_tokens else jnp.arange(case.length) == begin - 1
    query, key, value, sinks, of_out = before
    after = [jnp.where(changed[:, None, None], 1e3 * array + 7, array) for array in (query, key, value, of_out)]
    after = *after[:3], sinks, after[3]

    ours = case is not PLAIN
    shown = visible_keys(segment_ids, causal, window) if ours else segment_ids
    results = compiled(case) if ours else plain(name, window)
    with interpreted() if ours else contextlib.nullcontext():
        first, second = (jax.block_until_ready(results(*arrays, shown)) for arrays in (before, after))
    for x, y in zip((first[0], *first[1][:3]), (second[0], *second[1][:3]), strict=True):
        assert np.array_equal(x[:, begin:end], y[:, begin:end])
        assert not np.array_equal(x[:, :begin], y[:, :begin])
        assert np.isfinite(np.asarray(y, np.float32)).all()


@pytest.mark.parametrize("window", [None, 70])
def test_splash_equals_the_definition(window):
    rng = np.random.default_rng(1)
    query, key, value, _, of_out = numbers(PLAIN, rng)
    segment_ids = documents(rng, 1, 256, 4)
    out, gradients = plain("splash", window)(query, key, value, None, of_out, segment_ids)
    seen = sees(segment_ids, True, window)
    exact = definition(query, key, value, seen, soft_cap=3.0, scale=0.2, of_out=of_out)
    assert off(out, exact.out) < 2e-5
    for found, wanted in zip(gradients, exact[2:5], strict=True):
        assert off(found, wanted) < 2e-5


def test_splash_says_what_it_does_not_offer():
    arrays = [jnp.ones((1, 100, 2, 64))] * 3
    segment_ids = jnp.ones((1, 100), jnp.int32)
    with pytest.raises(ConfigurationError, match="a multiple of 128 tokens, not of 100"):
        attention(*arrays, segment_ids=segment_ids, implementation="splash")
    with pytest.raises(ConfigurationError, match="without sinks"):
        attention(*arrays, segment_ids=segment_ids, implementation="splash", sinks=jnp.zeros(2))
