"""Many MLPs in the place of one: a router gives each token to a few of them, and none is ever dropped (arXiv 2211.15841).

A device sorts its own tokens by expert, multiplies each expert's share of them by that expert's matrices (`ragged_dot`),
and puts the results back in order. Experts are cut over the mesh as one MLP is, along `hidden` and `mlp`: no mesh axis
counts them, and no token travels.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from cptjax.models.activations import ACTIVATIONS
from cptjax.models.config import DecoderConfig
from cptjax.models.numerics import Numerics
from cptjax.models.products import PRODUCT, Projection, precision_of, residual_gain
from cptjax.models.weights import Dimension, normal, weight
from cptjax.sharding.rules import constrain, is_cut, partition_spec

# (probabilities [batch, length, experts], chosen [batch, length, experts_per_token]) of a layer's router.
Tally = Callable[[jax.Array, jax.Array], None]


def unseen(probabilities: jax.Array, chosen: jax.Array) -> None:
    """Nobody wants to see how the router chooses."""


class Routing(NamedTuple):
    """How routers spread tokens over experts, summed over tokens (and layers), float32.

    chosen: [experts], how often each was chosen; probabilities: [experts]; tokens: how many were routed.
    """

    chosen: jax.Array
    probabilities: jax.Array
    tokens: jax.Array

    def loss(self) -> jax.Array:
        """The load-balancing loss: experts * sum_e(share of tokens that chose e * mean probability of e).

        Switch Transformer's (arXiv 2101.03961, eq. 4 to 6) as `transformers` takes it: the means are over the tokens of
        all layers together. It is `experts_per_token` where all experts are chosen alike, and up to `experts` where not.
        """
        tokens = jnp.maximum(self.tokens, 1.0)
        return self.chosen.size * jnp.sum(self.chosen / tokens * self.probabilities / tokens)


def routing_of(probabilities: jax.Array, chosen: jax.Array, counted: jax.Array) -> Routing:
    """Of one layer. counted: bool [batch, length], the tokens that count (padding does not)."""
    each = _is_one_of(chosen, probabilities.shape[-1]).any(-2).astype(jnp.float32)
    of_experts = (jnp.sum(jnp.where(counted[..., None], x, 0.0), axis=(0, 1)) for x in (each, probabilities))
    return Routing(*of_experts, jnp.sum(counted, dtype=jnp.float32))


class Kernel(nnx.Module):
    """A matrix for each expert."""

    def __init__(self, dimensions: Sequence[Dimension], experts: int, stack: int, rngs: nnx.Rngs, gain: float = 1.0):
        self.kernel = weight(rngs, stack, dimensions, normal(gain * dimensions[0][1] ** -0.5), 1, experts)


class Experts(nnx.Module):
    """The MLPs themselves: down(activation(gate(x)) * up(x)) each."""

    def __init__(self, config: DecoderConfig, stack: int, rngs: nnx.Rngs):
        hidden, mlp = ("hidden", config.hidden), ("mlp", config.expert_mlp)
        self.activation = config.activation
        self.gate = Kernel([hidden, mlp], config.experts, stack, rngs)
        self.up = Kernel([hidden, mlp], config.experts, stack, rngs)
        self.down = Kernel([mlp, hidden], config.experts, stack, rngs, gain=residual_gain(config))

    def __call__(self, x: jax.Array, chosen: jax.Array, shares: jax.Array, numerics: Numerics) -> jax.Array:
        """The shares of the chosen experts' results, added up.

        Args:
            x: [batch, length, hidden]; chosen: int32, shares: float32, [batch, length, experts_per_token].
        """
        kernels = [each.kernel[...].astype(numerics.compute_dtype) for each in (self.gate, self.up, self.down)]
        mix = functools.partial(mixed, activation=ACTIVATIONS[self.activation], numerics=numerics)
        if not is_cut():
            return mix(x, chosen, shares, *kernels)
        mesh = jax.sharding.get_abstract_mesh()
        # Each device works for itself: a sort of all tokens would carry them over the mesh and back.
        tokens = partition_spec(mesh, ("batch", "sequence", None), x.shape)
        into = partition_spec(mesh, (None, None, "mlp"), kernels[0].shape)
        out = partition_spec(mesh, (None, "mlp", None), kernels[2].shape)
        each = functools.partial(_summed_over, mix, into[2])
        return jax.shard_map(each, in_specs=(tokens, tokens, tokens, into, into, out), out_specs=tokens)(
            x, chosen, shares, *kernels
        )


class Mixture(nnx.Module):
    """A router and its experts, in the place of an MLP."""

    def __init__(self, config: DecoderConfig, stack: int, rngs: nnx.Rngs):
        self.per_token, self.renormalised = config.experts_per_token, config.renormalised_experts
        self.router = Projection([("hidden", config.hidden)], [(None, config.experts)], False, stack, rngs)
        self.experts = Experts(config, stack, rngs)

    def __call__(self, x: jax.Array, numerics: Numerics, tally: Tally = unseen) -> jax.Array:
        """[batch, length, hidden] -> the same shape."""
        # In float32 whatever the compute dtype: what rounding makes of a close choice is another model.
        scores = self.router(x, dataclasses.replace(numerics, compute_dtype="float32"))
        probabilities = jax.nn.softmax(constrain(scores, "batch", "sequence", None), axis=-1)
        chosen, shares = choice(probabilities, self.per_token, self.renormalised)
        tally(probabilities, chosen)
        return constrain(self.experts(x, chosen, shares, numerics), "batch", "sequence", None)


def choice(probabilities: jax.Array, count: int, renormalised: bool) -> tuple[jax.Array, jax.Array]:
    """The `count` most probable experts of each token, the lower number first where equal, and their shares.

    Returns:
        int32 and float32 [..., count].
    """
    _, chosen = jax.lax.top_k(jax.lax.stop_gradient(probabilities), count)
    # A sum with one term: its gradient is a comparison too, where that of a gather is a scatter.
    shares = jnp.sum(jnp.where(_is_one_of(chosen, probabilities.shape[-1]), probabilities[..., None, :], 0.0), axis=-1)
    return chosen, shares / jnp.sum(shares, axis=-1, keepdims=True) if renormalised else shares


def _is_one_of(chosen: jax.Array, experts: int) -> jax.Array:
    """[..., count] -> bool [..., count, experts]."""
    return chosen[..., None] == jnp.arange(experts, dtype=chosen.dtype)


def mixed(
    x: jax.Array,
    chosen: jax.Array,
    shares: jax.Array,
    gate: jax.Array,
    up: jax.Array,
    down: jax.Array,
    activation: Callable[[jax.Array], jax.Array],
    numerics: Numerics,
) -> jax.Array:
    """See `Experts.__call__`. gate, up: [experts, hidden, mlp], down: [experts, mlp, hidden], in the compute dtype."""
    experts, hidden, _ = gate.shape
    expert = chosen.reshape(-1)  # of each pair of a token and one of its experts
    order = jnp.argsort(expert, stable=True)
    places = jnp.argsort(order)
    sizes = jnp.sum(_is_one_of(expert, experts), axis=0, dtype=jnp.int32)
    rows = _sorted(x.reshape(-1, hidden), order, places)
    inner = activation(_each_by_its_own(rows, gate, sizes, numerics)) * _each_by_its_own(rows, up, sizes, numerics)
    pairs = _reordered(_each_by_its_own(inner, down, sizes, numerics), places, order)
    pairs = pairs.reshape(*chosen.shape, hidden).astype(jnp.float32)
    return jnp.sum(pairs * shares[..., None], axis=-2).astype(x.dtype)


def _each_by_its_own(rows: jax.Array, kernel: jax.Array, sizes: jax.Array, numerics: Numerics) -> jax.Array:
    """The first sizes[0] rows by kernel[0], the next sizes[1] by kernel[1], ..."""
    precision, dtype = precision_of(numerics), jnp.dtype(numerics.compute_dtype)
    product = jax.lax.ragged_dot(rows, kernel, sizes, precision=precision, preferred_element_type=dtype)
    return checkpoint_name(product, PRODUCT)


def _summed_over(mix: Callable[..., jax.Array], axes: str | tuple[str, ...] | None, *arguments: jax.Array) -> jax.Array:
    """`mix`, where each device has a part of every expert's inner width."""
    part = mix(*arguments)
    return part if axes is None else jax.lax.psum(part, axes)


@jax.custom_vjp
def _sorted(tokens: jax.Array, order: jax.Array, places: jax.Array) -> jax.Array:
    """[tokens, hidden] -> [pairs, hidden]: the token of each pair, in `order`; pair p is of token p // (pairs / tokens).

    Written with its gradient, as `_reordered`: both ways are gathers, where JAX's own is a scatter.
    """
    return tokens[order // (order.size // len(tokens))]


def _sorted_backward(saved: tuple[jax.Array, int], cotangent: jax.Array):
    places, tokens = saved
    by_token = cotangent[places].reshape(tokens, -1, cotangent.shape[-1])
    return jnp.sum(by_token, axis=1), None, None


_sorted.defvjp(lambda tokens, order, places: (_sorted(tokens, order, places), (places, len(tokens))), _sorted_backward)


@jax.custom_vjp
def _reordered(rows: jax.Array, order: jax.Array, places: jax.Array) -> jax.Array:
    """rows[order]; `places` is the inverse of the permutation."""
    return rows[order]


_reordered.defvjp(
    lambda rows, order, places: (rows[order], places), lambda places, cotangent: (cotangent[places], None, None)
)
