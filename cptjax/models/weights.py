"""The one place where a weight is declared: shape, logical axes, initializer. Everything else about it is derived."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

# A weight's dimension: its logical axis (`sharding.rules.RULES`; None is never cut) and its size.
Dimension = tuple[str | None, int]
# The embedding table and the head start at this deviation, so that the first losses are near log(vocabulary).
VOCABULARY_DEVIATION = 0.02
EXPERTS = "experts"  # the axis that counts them, which no mesh axis cuts
Initializer = Callable[[jax.Array, tuple[int, ...], jnp.dtype], jax.Array]


def weight(
    rngs: nnx.Rngs,
    stack: int | None,
    dimensions: Sequence[Dimension],
    initializer: Initializer,
    inputs: int = 0,
    experts: int | None = None,
) -> nnx.Param:
    """A float32 parameter of the given dimensions; `stack` layers of it, layers first, unless None.

    inputs: how many dimensions, the first ones, a product sums over; 0 for what is no matrix (a norm, a bias, a table).
    experts: each layer has so many of it, one for each expert.

    The logical axes ride along as metadata of our own: what flax does with its own name for them varies by version.
    """
    stacked = [
        *([] if stack is None else [(None, stack)]),
        *([] if experts is None else [(EXPERTS, experts)]),
        *dimensions,
    ]
    shape = tuple(size for _, size in stacked)
    axes = tuple(axis for axis, _ in stacked)
    value = initializer(rngs.params(), shape, jnp.float32)
    return nnx.Param(value, logical_axes=axes, stacked=stack is not None, product_inputs=inputs)


def normal(deviation: float) -> Initializer:
    """Normal with mean 0 and the given standard deviation: each value the sum of twelve uniform 16-bit integers.

    Integers are summed exactly and rounded once, so a mesh, a platform or a compiler cannot change a bit of the result;
    the usual inverse error function comes out differently where an array is cut differently (seen on a CPU, JAX 0.12).
    Twelve make the deviation 65536; nothing lies beyond 6 deviations, and the kurtosis is 2.9 for 3.
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        words = jax.random.bits(key, (6, *shape), jnp.uint32)
        total = jnp.sum((words >> 16) + (words & 0xFFFF), axis=0, dtype=jnp.uint32)
        return (total.astype(jnp.int32) - 6 * 65535).astype(dtype) * (deviation / 65536)

    return draw


def padded(initializer: Initializer, axis: int, size: int) -> Initializer:
    """`initializer` for the first `size` along `axis`, and zeros behind: what it draws does not depend on the padding."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        drawn = initializer(key, (*shape[:axis], size, *shape[axis + 1 :]), dtype)
        behind = [(0, whole - part) for whole, part in zip(shape, drawn.shape, strict=True)]
        return jnp.pad(drawn, behind) if shape[axis] > size else drawn

    return draw


def ones(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Ones, for the scales of norms."""
    return jnp.ones(shape, dtype)


def zeros(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Zeros, for biases."""
    return jnp.zeros(shape, dtype)
