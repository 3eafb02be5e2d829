"""The product that every projection is: its gradients are those of JAX, whatever the dtypes and dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.models.numerics import Numerics
from cptjax.models.products import contract


def plain(x, kernel, count, numerics, result):
    """The product as JAX differentiates it."""
    dtype = numerics.compute_dtype
    dimensions = (tuple(range(x.ndim - count, x.ndim)), tuple(range(count)))
    return jax.lax.dot_general(
        x.astype(dtype),
        kernel.astype(dtype),
        (dimensions, ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.dtype(result or dtype),
    )


@pytest.mark.parametrize("dtype, result", [("float32", None), ("bfloat16", None), ("bfloat16", "float32")])
@pytest.mark.parametrize("x_shape, kernel_shape, count", [((2, 5, 8), (8, 12), 1), ((2, 5, 2, 4), (2, 4, 6), 2)])
def test_gradients_are_those_of_the_plain_product(dtype, result, x_shape, kernel_shape, count):
    rng, numerics = np.random.default_rng(0), Numerics(dtype)
    x = jnp.asarray(rng.normal(size=x_shape), dtype)
    kernel = jnp.asarray(rng.normal(size=kernel_shape), jnp.float32)

    def gradients(product):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(product(x, kernel, count, numerics, result).astype(jnp.float32)))

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(x, kernel)

    for mine, theirs in zip(gradients(contract), gradients(plain), strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        # The same products of the same numbers, summed in another order: neighbours in the compute dtype at most, and where
        # a sum cancels, in what is summed.
        unit = 1e-6 if dtype == "float32" else 2.0**-7
        assert np.allclose(
            np.float64(mine), np.float64(theirs), rtol=unit, atol=unit * np.abs(np.float64(theirs)).max()
        )
