"""Bugs planted in small kernels, each caught by the way of checking that is there to catch it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import RaceFound, interpreted
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

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
