"""How an optimizer of optax sees the weights and keeps its moments: matrix by matrix, and in which dtype."""

import math
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
import optax

from cptjax.models.model import Params, WeightSpec


def by_matrix(inner: optax.GradientTransformation, weights: Mapping[str, WeightSpec]) -> optax.GradientTransformation:
    """`inner` on every layer's (and expert's) weight by itself, matrices as (inputs) x (outputs): its state is one for each weight.

    A stack of layers is one array of ours; what an optimizer takes from a whole array (a norm, the two dimensions that it
    factors over) would otherwise be taken over layers, or over the heads of one projection.
    """

    def view(name: str, array: jax.Array) -> jax.Array:
        spec = weights[name]
        if not spec.inputs:
            return array
        shape = (math.prod(spec.shape[axis] for axis in axes) for axes in (spec.inputs, spec.outputs))
        return array.reshape(*spec.counts, *shape)

    def for_each(name: str, function: Callable) -> Callable:
        for _ in weights[name].counts:
            function = jax.vmap(function)
        return function

    def init(params: Params):
        states = {}
        for name, array in params.items():
            states[name] = for_each(name, inner.init)(view(name, array))
        return states

    def update(gradients: Params, states, params: Params):
        updates, new = {}, {}
        for name, gradient in gradients.items():
            each = for_each(name, inner.update)
            found, new[name] = each(view(name, gradient), states[name], view(name, params[name]))
            updates[name] = found.reshape(gradient.shape)
        return updates, new

    return optax.GradientTransformation(init, update)


def scaled_by_size(weights: Mapping[str, WeightSpec], rms: float) -> optax.GradientTransformation:
    """An orthogonal update times rms * sqrt(max(inputs, outputs)), which has about that root mean square (arXiv 2502.16982)."""

    def scale(name: str, update: jax.Array) -> jax.Array:
        spec = weights[name]
        sizes = (math.prod(spec.shape[axis] for axis in axes) for axes in (spec.inputs, spec.outputs))
        return rms * math.sqrt(max(sizes)) * update

    def update(updates, state, params=None):
        masked = optax.MaskedNode
        return {name: u if isinstance(u, masked) else scale(name, u) for name, u in updates.items()}, state

    return optax.GradientTransformation(optax.init_empty_state, update)


def kept_in(inner: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
    """`inner`, its moments (what stands under a weight's name) kept in `dtype` between steps and computed in float32."""
    if dtype == "float32":
        return inner

    def cast(state, names: Collection[str], to: str):
        def leaf(path, value):
            # Other dictionaries are the optimizer's own (optax.partition's labels): the last name is the weight's.
            last = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1:]
            return (
                value.astype(to) if last and last[0] in names and jnp.issubdtype(value.dtype, jnp.floating) else value
            )

        return jax.tree_util.tree_map_with_path(leaf, state)

    def init(params: Params):
        return cast(inner.init(params), params, dtype)

    def update(gradients: Params, state, params: Params | None = None):
        updates, state = inner.update(gradients, cast(state, gradients, "float32"), params)
        return updates, cast(state, gradients, dtype)

    return optax.GradientTransformation(init, update)
