"""What a decoder layer is made of: norms, projections, attention and the gated MLP.

Every module declares its weights for a whole stack of layers ([layers, ...]) and computes with one slice of it.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from cptjax.models.config import DecoderConfig, Numerics
from cptjax.models.rope import Rotary, rotate
from cptjax.models.weights import Dimension, normal, ones, weight, zeros
from cptjax.sharding.rules import constrain

# (query, key, value, window) -> what each query reads, all [batch, length, heads, head_dim], rotary angles applied. Whose
# tokens a query may see is the caller's: those of its document in a row, or those a cache remembers.
Attend = Callable[[jax.Array, jax.Array, jax.Array, int | None], jax.Array]


# What Numerics.remat knows the results by, that a policy may keep: no policy sees the products inside `contract`.
PRODUCT, ATTENTION_OUTPUT = "product", "attention_output"


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
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        x,
        y,
        (summed, ((), ())),
        precision=precision,
        preferred_element_type=jnp.dtype(result or dtype),
    )


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


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis, in float32 (arXiv 1910.07467)."""

    def __init__(self, config: DecoderConfig, stack: int | None, rngs: nnx.Rngs):
        self.epsilon = config.norm_epsilon
        self.scale = weight(rngs, stack, [(None, config.hidden)], ones)

    def __call__(self, x: jax.Array, numerics: Numerics) -> jax.Array:
        """[..., hidden] in any float dtype -> [..., hidden] in the compute dtype."""
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        return (x * self.scale[...]).astype(numerics.compute_dtype)


class Projection(nnx.Module):
    """x @ kernel (+ bias): the last dimensions of x, `inputs`, become `outputs`.

    Kernels start normal with deviation gain / sqrt(fan in), biases at zero.
    """

    def __init__(
        self,
        inputs: Sequence[Dimension],
        outputs: Sequence[Dimension],
        bias: bool,
        stack: int,
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


class Attention(nnx.Module):
    """Rotary grouped-query attention."""

    def __init__(self, config: DecoderConfig, window: int | None, stack: int, rngs: nnx.Rngs):
        hidden, head = ("hidden", config.hidden), (None, config.head_dim)
        heads, kv_heads = ("heads", config.heads), ("kv_heads", config.kv_heads)
        biased = config.query_key_value_bias
        self.window = window
        self.query = Projection([hidden], [heads, head], biased, stack, rngs)
        self.key = Projection([hidden], [kv_heads, head], biased, stack, rngs)
        self.value = Projection([hidden], [kv_heads, head], biased, stack, rngs)
        self.output = Projection([heads, head], [hidden], config.output_bias, stack, rngs, gain=residual_gain(config))

    def __call__(self, x: jax.Array, rotary: Rotary, attend: Attend, numerics: Numerics) -> jax.Array:
        """[batch, length, hidden] -> the same shape."""
        query = constrain(self.query(x, numerics), "batch", "sequence", "heads", None)
        key = constrain(self.key(x, numerics), "batch", "sequence", "kv_heads", None)
        value = constrain(self.value(x, numerics), "batch", "sequence", "kv_heads", None)
        mixed = attend(rotate(query, rotary), rotate(key, rotary), value, self.window)
        mixed = checkpoint_name(constrain(mixed, "batch", "sequence", "heads", None), ATTENTION_OUTPUT)
        return self.output(mixed, numerics)


class GatedMLP(nnx.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, config: DecoderConfig, stack: int, rngs: nnx.Rngs):
        hidden, mlp, biased = ("hidden", config.hidden), ("mlp", config.mlp), config.mlp_bias
        self.gate = Projection([hidden], [mlp], biased, stack, rngs)
        self.up = Projection([hidden], [mlp], biased, stack, rngs)
        self.down = Projection([mlp], [hidden], biased, stack, rngs, gain=residual_gain(config))

    def __call__(self, x: jax.Array, numerics: Numerics) -> jax.Array:
        """[batch, length, hidden] -> the same shape."""
        gate = constrain(self.gate(x, numerics), "batch", "sequence", "mlp")
        up = constrain(self.up(x, numerics), "batch", "sequence", "mlp")
        return self.down(jax.nn.silu(gate) * up, numerics)


class Layer(nnx.Module):
    """Attention, then the MLP, each on the normalised residual stream and added to it."""

    def __init__(self, config: DecoderConfig, window: int | None, stack: int, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config, stack, rngs)
        self.attention = Attention(config, window, stack, rngs)
        self.mlp_norm = RMSNorm(config, stack, rngs)
        self.mlp = GatedMLP(config, stack, rngs)

    def __call__(self, x: jax.Array, rotary: Rotary, attend: Attend, numerics: Numerics) -> jax.Array:
        """[batch, length, hidden] -> the same shape: the residual stream, in the compute dtype."""
        x = x + self.attention(self.attention_norm(x, numerics), rotary, attend, numerics)
        x = constrain(x, "batch", "sequence", None)
        x = x + self.mlp(self.mlp_norm(x, numerics), numerics)
        return constrain(x, "batch", "sequence", None)


def residual_gain(config: DecoderConfig) -> float:
    """What projections into the residual stream start shrunk by: 1 / sqrt(their number) (GPT-2, section 2.3)."""
    return 1.0 / math.sqrt(2 * config.layers)
