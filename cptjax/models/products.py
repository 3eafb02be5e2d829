"""The matrix product that every projection is, its gradient, and projections themselves."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from cptjax.models.config import DecoderConfig
from cptjax.models.numerics import Numerics
from cptjax.models.weights import Dimension, normal, weight, zeros

# What Numerics.remat knows the results by, that a policy may keep: no policy sees the products inside `contract`.
PRODUCT = "product"


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def contract(x: jax.Array, kernel: jax.Array, count: int, numerics: Numerics, result: str | None = None) -> jax.Array:
    """Sums over the last `count` dimensions of `x` and the first `count` of `kernel`, in the compute dtype.

    float32 products name HIGHEST: on a TPU the default would round their inputs to bfloat16. bfloat16 products
    accumulate in float32 inside the matrix unit; `result` names another dtype to leave it in.

    Its gradients are JAX's own but for one thing: the kernel's is asked for in the kernel's order of dimensions. JAX asks
    for its transpose, for which XLA turns the cotangent around in memory on a CPU: five times the product's own time.
    """
    left = tuple(range(x.ndim - count, x.ndim))
    dtype = numerics.compute_dtype
    return _product(x.astype(dtype), kernel.astype(dtype), (left, tuple(range(count))), numerics, result)


def _product(
    x: jax.Array, y: jax.Array, summed: tuple[Sequence[int], Sequence[int]], numerics: Numerics, result: str | None
) -> jax.Array:
    """Sums over dimensions `summed` of each: the others of x, then those of y. x and y are in dtypes of the caller's."""
    dtype = jnp.dtype(numerics.compute_dtype)
    return jax.lax.dot_general(
        x,
        y,
        (summed, ((), ())),
        precision=precision_of(numerics),
        preferred_element_type=jnp.dtype(result or dtype),
    )


def precision_of(numerics: Numerics) -> jax.lax.Precision:
    """What a product in the compute dtype names."""
    exact = numerics.compute_dtype == "float32"
    return jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT


def _contract_forward(x, kernel, count, numerics, result):
    return contract(x, kernel, count, numerics, result), (x, kernel)


def _contract_backward(count, numerics, result, saved, cotangent):
    """The cotangent is in `result`'s dtype and stays in it, as in JAX's own gradient."""
    x, kernel = saved
    dtype = numerics.compute_dtype
    kept = x.ndim - count  # dimensions of x that the product leaves
    ends = tuple(range(kept, cotangent.ndim)), tuple(range(count, kernel.ndim))
    of_x = _product(cotangent, kernel.astype(dtype), ends, numerics, result).astype(dtype)
    rows = tuple(range(kept))
    of_kernel = _product(x.astype(dtype), cotangent, (rows, rows), numerics, result).astype(dtype)
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


contract.defvjp(_contract_forward, _contract_backward)


class Projection(nnx.Module):
    """x @ kernel (+ bias): the last dimensions of x, `inputs`, become `outputs`.

    Kernels start normal with deviation gain / sqrt(fan in), biases at zero.
    """

    def __init__(
        self,
        inputs: Sequence[Dimension],
        outputs: Sequence[Dimension],
        bias: bool,
        stack: int | None,
        rngs: nnx.Rngs,
        gain: float = 1.0,
    ):
        self.contracted = len(inputs)
        fan_in = math.prod(size for _, size in inputs)
        self.kernel = weight(rngs, stack, [*inputs, *outputs], normal(gain / math.sqrt(fan_in)), len(inputs))
        self.bias = weight(rngs, stack, outputs, zeros) if bias else None

    def __call__(self, x: jax.Array, numerics: Numerics) -> jax.Array:
        """[..., *inputs] -> [..., *outputs], in the compute dtype."""
        x = checkpoint_name(contract(x, self.kernel[...], self.contracted, numerics), PRODUCT)
        return x if self.bias is None else x + self.bias[...].astype(x.dtype)


def residual_gain(config: DecoderConfig) -> float:
    """What projections into the residual stream start shrunk by: 1 / sqrt(their number) (GPT-2, section 2.3)."""
    return 1.0 / math.sqrt(2 * config.layers)
