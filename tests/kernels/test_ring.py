"""Attention around a ring of devices against the same attention on one, and what its plan leaves out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from cptjax.kernels.attention import ring
from cptjax.kernels.attention.intervals import visible_keys
from cptjax.kernels.attention.local import local_attention, local_plan
from cptjax.kernels.attention.reference import reference_attention

LENGTH, HEAD_DIM = 64, 8


def mesh_of(size):
    return Mesh(np.array(jax.devices()[:size]), ("context",), axis_types=(AxisType.Auto,))


ROWS = P(None, "context")


def over(mesh, function, *inputs, outputs=ROWS):
    """`function` on each device's part of arrays [batch, length, ...]; the results put together."""
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=ROWS, out_specs=outputs, check_vma=False))(*inputs)


def around(size, segment_ids, window=None, soft_cap=None):
    """Attention around a ring of `size`, of arrays in the row's order, and which of its hops are needed."""
    mesh, of = mesh_of(size), ring.Ring("context", size)
    plan_of = functools.partial(local_plan, implementation="reference", head_dim=HEAD_DIM, dtype=jnp.float32)

    def part(query, key, value, first, last):
        arrays = [ring.balanced(array, of) for array in (query, key, value, first, last)]
        plan = ring.plan_ring(visible._replace(first=arrays[3], last=arrays[4]), of, ("context",), plan_of)
        local = local_attention("reference", soft_cap, HEAD_DIM**-0.5)
        out, log_sum = ring.ring_attention(*arrays[:3], plan, of, local)
        return ring.in_order(out, of), ring.in_order(log_sum, of), plan.needed

    visible = visible_keys(segment_ids, True, window)
    return lambda query, key, value: over(mesh, part, query, key, value, *visible, outputs=(ROWS, ROWS, P()))


def random_inputs(seed, documents):
    rng = np.random.default_rng(seed)
    shapes = [(2, LENGTH, 4, HEAD_DIM), (2, LENGTH, 2, HEAD_DIM), (2, LENGTH, 2, HEAD_DIM)]
    segments = np.sort(rng.integers(0, documents, (2, LENGTH)), axis=1)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes], jnp.asarray(segments, jnp.int32)


@settings(max_examples=6)
@example(seed=0, size=8, documents=3, window=None, soft_cap=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([2, 4]),
    documents=st.sampled_from([1, 3, 30]),
    window=st.sampled_from([None, 9]),
    soft_cap=st.sampled_from([None, 2.0]),
)
def test_equals_attention_on_one_device_with_its_gradients(seed, size, documents, window, soft_cap):
    arrays, segment_ids = random_inputs(seed, documents)
    ringed = around(size, segment_ids, window, soft_cap)

    def whole(query, key, value):
        visible = visible_keys(segment_ids, True, window)
        return reference_attention(query, key, value, visible, soft_cap=soft_cap, scale=HEAD_DIM**-0.5)

    def weighed(function):
        def total(*arrays):
            out, log_sum, *_ = function(*arrays)
            return jnp.sum(jnp.sin(3 * out)), (out, log_sum)

        (_, results), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*arrays)
        return *results, *gradients

    for one, other in zip(weighed(ringed), weighed(whole), strict=True):
        assert np.linalg.norm(one - other) <= 2e-5 * np.linalg.norm(other)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_balanced_order_gives_each_device_a_piece_from_either_end(size):
    mesh, of = mesh_of(size), ring.Ring("context", size)
    tokens = jnp.arange(LENGTH)[None]
    there = over(mesh, functools.partial(ring.balanced, ring=of), tokens)
    piece = LENGTH // (2 * size)
    places = [place for device in range(size) for place in (device, 2 * size - 1 - device)]
    expected = [place * piece + i for place in places for i in range(piece)]
    assert there[0].tolist() == expected
    assert np.array_equal(over(mesh, functools.partial(ring.in_order, ring=of), there), tokens)


def needed_hops(size, segment_ids, window=None):
    arrays, _ = random_inputs(0, 1)
    return around(size, jnp.asarray(segment_ids, jnp.int32)[None].repeat(2, 0), window)(*arrays)[2].tolist()


def test_hops_that_no_document_reaches_over_are_left_out():
    """Eight devices, pieces of 4 tokens; the shifts are 0, 1, -1, 2, -2, 3, -3, 4."""
    assert needed_hops(8, np.arange(LENGTH) // 4) == [True] + [False] * 7
    # Documents of two pieces, from an even one on: piece 2i + 1 asks device 2i for keys; the pieces from the back, the other way.
    assert needed_hops(8, np.arange(LENGTH) // 8) == [True, True, True] + [False] * 5
    assert needed_hops(8, np.zeros(LENGTH)) == [True] * 8
    assert needed_hops(8, np.zeros(LENGTH), window=5) == [True, True, True] + [False] * 5


def test_what_is_left_out_is_not_exchanged_when_it_runs():
    """What is not a number shows in every result that it takes part in, of hidden keys too: on its own device alone."""
    arrays, _ = random_inputs(1, 1)
    segment_ids = jnp.asarray(np.arange(LENGTH) // 4, jnp.int32)[None].repeat(2, 0)
    query, key, value = arrays
    poisoned = value.at[:, 4:8].set(jnp.nan)
    out = np.asarray(around(8, segment_ids)(query, key, poisoned)[0])
    own = np.isin(np.arange(LENGTH) // 4, [1, 14])  # the two pieces of the device that has the poisoned one
    assert np.isnan(out[:, 4:8]).all()
    assert np.isfinite(out[:, ~own]).all()
