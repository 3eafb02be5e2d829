"""Bugs planted in small kernels and in our own, each caught by the way of checking that is there to catch it."""

import dataclasses
import functools
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import RaceFound, interpreted
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from cptjax.kernels.attention import forward
from cptjax.kernels.attention.block_sizes import VMEM, BlockSizes
from cptjax.kernels.attention.intervals import visible_keys
from cptjax.kernels.attention.plan import Work, plan_intervals
from cptjax.kernels.attention.scores import Scaling

X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 128)), jnp.float32)


def copying(wait: bool):
    """A kernel that has its input copied, and reads the copy; without waiting for it, that is a race."""

    def kernel(source, out, copy, arrived):
        moving = pltpu.make_async_copy(source, copy, arrived)
        moving.start()
        if wait:
            moving.wait()
        out[...] = copy[...]
        if not wait:
            moving.wait()

    return pl.pallas_call(
        kernel,
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
        out_specs=pl.BlockSpec(memory_space=pltpu.VMEM),
        out_shape=jax.ShapeDtypeStruct(X.shape, X.dtype),
        scratch_shapes=[pltpu.VMEM(X.shape, X.dtype), pltpu.SemaphoreType.DMA],
    )


def shifted(by: int):
    """A kernel that reads 8 rows of 16 from row `by` on, which it learns as it runs."""

    def kernel(begin, source, out):
        out[...] = source[pl.ds(begin[0], 8), :]

    grid = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(1,),
        in_specs=[pl.BlockSpec((16, 128), lambda step, begin: (0, 0))],
        out_specs=pl.BlockSpec((8, 128), lambda step, begin: (0, 0)),
    )
    call = pl.pallas_call(kernel, grid_spec=grid, out_shape=jax.ShapeDtypeStruct((8, 128), X.dtype))
    return lambda x: call(jnp.asarray([by], jnp.int32), x)


def test_the_interpreter_finds_a_race():
    with interpreted():
        assert np.array_equal(jax.block_until_ready(copying(wait=True)(X)), X)
    with pytest.raises(RaceFound), interpreted():
        jax.block_until_ready(copying(wait=False)(X))


def test_a_race_of_an_earlier_kernel_is_not_forgotten():
    with pytest.raises(RaceFound), interpreted():
        jax.block_until_ready(copying(wait=True)(jax.block_until_ready(copying(wait=False)(X))))


def test_the_interpreter_refuses_a_read_out_of_bounds():
    with interpreted():
        assert np.array_equal(jax.block_until_ready(shifted(8)(X)), X[8:])
    with pytest.raises(Exception, match="[Oo]ut-of-bounds"), interpreted():
        jax.block_until_ready(shifted(9)(X))


def test_the_interpreter_shows_what_was_never_written():
    def kernel(source, out, scratch):
        out[...] = source[...] + scratch[...]

    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    with interpreted():
        found = pl.pallas_call(kernel, out_shape=shape, scratch_shapes=[pltpu.VMEM(X.shape, X.dtype)])(X)
        assert np.isnan(found).all()


# --- In our own kernel ---

PLAN = plan_intervals(
    visible_keys(jnp.asarray([[1] * 100 + [2] * 156]), True, None), 256, BlockSizes(128, 128, 256, 128, 128, 256)
)
NUMBERS = [jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 256, 64)), jnp.float32) for _ in range(3)]


@functools.cache
def attending(cores, block_spec=pl.BlockSpec):
    """The forward kernel, its blocks as `block_spec` says; (query, key, value, plan) -> what is read."""
    pallas = types.SimpleNamespace(**{**vars(pl), "BlockSpec": block_spec})

    @jax.jit
    def attend(query, key, value, plan):
        with mock.patch.object(forward, "pl", pallas):
            return forward.attention_forward(query, key, value, plan, Scaling(0.125, None), VMEM["v5e"], sums=False)[0]

    def run(plan):
        with interpreted(cores):
            return jax.block_until_ready(attend(*NUMBERS, plan))

    return run


def planned(**changed):
    """The plan with other steps forward."""
    return dataclasses.replace(PLAN, forward=dataclasses.replace(PLAN.forward, **changed))


def to_the_first_head(shape, index):
    """A block that every head thinks to be its own."""
    return pl.BlockSpec(shape, lambda head, *rest: index(head * 0, *rest))


def test_our_kernel_has_no_race_on_two_cores_and_a_planted_one_is_found():
    assert np.array_equal(attending(cores=2)(PLAN), attending(cores=1)(PLAN))
    with pytest.raises(RaceFound):
        attending(cores=2, block_spec=to_the_first_head)(PLAN)


def test_a_plan_that_reads_beyond_the_keys_is_found():
    work = Work.of(PLAN.forward.work)
    longer = work._replace(end=work.end + 1).packed()
    with pytest.raises(Exception, match="[Oo]ut-of-bounds"):
        attending(cores=1)(planned(work=longer))


def test_a_plan_that_comes_back_to_a_block_is_found():
    """Its result would have left VMEM, and half of it would be lost."""
    steps, at = PLAN.forward, PLAN.forward.at
    back = at.packed(np.zeros(3, np.int32), np.asarray([0, 1, 0]), np.zeros(3, np.int32))
    again = planned(count=jnp.full(1, 3), place=jnp.asarray(back), work=jnp.append(steps.work, steps.work[:1]))
    with pytest.raises(Exception, match="Revisited block"):
        attending(cores=1)(again)
