"""The decoder as functions over plain data: `Params` is a flat dict from our dotted names to arrays.

Outside this file nobody meets a module: parameters are initialised, sharded, saved and differentiated as a dict.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from cptjax.models.config import DecoderConfig
from cptjax.models.decoder import Decoder
from cptjax.models.experts import Routing
from cptjax.models.numerics import Numerics
from cptjax.models.weights import EXPERTS
from cptjax.sharding.rules import LogicalAxes, sharding_of

Params = dict[str, jax.Array]


class WeightSpec(NamedTuple):
    """What is known of a weight before it has a value.

    axes: the name of each dimension (sharding.rules).
    stacked: whether the first dimension counts layers.
    inputs, outputs: the dimensions that a product sums over, and those that it gives; none for what is no matrix.
    """

    shape: tuple[int, ...]
    dtype: jnp.dtype
    axes: LogicalAxes
    stacked: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Sizes of the first dimensions, which count weights of their own: layers, and experts of each."""
        return self.shape[: int(self.stacked) + (EXPERTS in self.axes)]


class ParameterCounts(NamedTuple):
    """Numbers of parameters. `non_embedding` leaves out what grows with the vocabulary or the length: the embedding table
    and, where there are such, the untied head and the table of learned positions.

    `active` is what one token's forward pass reads: all of them, but of the experts those that it is given to.
    """

    total: int
    non_embedding: int
    active: int


class _Outline(NamedTuple):
    """A decoder without its values: how to build it again from leaves, and what each leaf is called."""

    definition: nnx.GraphDef
    tree: Any
    specs: dict[str, WeightSpec]


@functools.lru_cache(maxsize=64)
def _outline(config: DecoderConfig, numerics: Numerics) -> _Outline:
    decoder = nnx.eval_shape(lambda: Decoder(config, numerics, nnx.Rngs(params=0)))
    definition, state = nnx.split(decoder)
    specs = _named(state, _spec)
    return _Outline(definition, jax.tree.structure(state), specs)


def _spec(parameter: nnx.Param, value: jax.ShapeDtypeStruct) -> WeightSpec:
    first = int(parameter.stacked) + (EXPERTS in parameter.logical_axes)
    middle = first + parameter.product_inputs
    inputs, outputs = (
        (tuple(range(first, middle)), tuple(range(middle, len(value.shape)))) if middle > first else ((), ())
    )
    return WeightSpec(value.shape, value.dtype, parameter.logical_axes, parameter.stacked, inputs, outputs)


def _named(state: nnx.State, value: Any) -> dict[str, Any]:
    """Dotted name -> value(parameter, its array), in the order of the state's leaves."""
    parameters, _ = jax.tree.flatten_with_path(state, is_leaf=lambda node: isinstance(node, nnx.Variable))
    return {
        ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path): value(
            parameter, parameter.get_value()
        )
        for path, parameter in parameters
    }


def abstract_weights(config: DecoderConfig) -> dict[str, WeightSpec]:
    """Every weight of the decoder: name -> shape, dtype, logical axes. Derived from the modules' own declarations."""
    return dict(_outline(config, Numerics()).specs)


def parameter_counts(config: DecoderConfig) -> ParameterCounts:
    """How many parameters the decoder has, counted on its weights; rows of padding are none."""
    sizes = {name: math.prod(spec.shape) for name, spec in abstract_weights(config.unpadded()).items()}
    total = sum(sizes.values())
    left_out = sum(sizes.get(name, 0) for name in ("embedding.table", "head.kernel", "positions.table"))
    of_experts = sum(sizes[name] for name, spec in abstract_weights(config).items() if EXPERTS in spec.axes)
    idle = of_experts // config.experts * (config.experts - config.experts_per_token) if of_experts else 0
    return ParameterCounts(total, total - left_out, total - idle)


def weight_shardings(config: DecoderConfig, mesh: Mesh) -> dict[str, NamedSharding]:
    """Where each weight lives on `mesh`."""
    return {name: sharding_of(mesh, spec.axes, spec.shape) for name, spec in abstract_weights(config).items()}


def abstract_parameters(config: DecoderConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters' shapes, dtypes and places with no memory behind them: what a checkpoint is restored into."""
    return {
        name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding_of(mesh, spec.axes, spec.shape))
        for name, spec in abstract_weights(config).items()
    }


def initialize(config: DecoderConfig, seed: int, mesh: Mesh) -> Params:
    """Random float32 parameters, made in place on `mesh`: the same values on any mesh."""
    return _draw(config, mesh)(jax.random.key(seed))


@functools.lru_cache(maxsize=16)
def _draw(config: DecoderConfig, mesh: Mesh) -> Any:
    """Compiled, once for all seeds: a key's parameters."""

    def draw(key: jax.Array) -> Params:
        return _named(nnx.state(Decoder(config, Numerics(), nnx.Rngs(params=key))), lambda _, value: value)

    return jax.jit(draw, out_shardings=weight_shardings(config, mesh))


def repadded(params: Params, config: DecoderConfig, mesh: Mesh) -> Params:
    """The parameters of `config`'s model with as many rows of padding as `config` has. What is not cut or filled is taken over."""
    specs = abstract_weights(config)

    def fitted(name: str, value: jax.Array) -> jax.Array:
        shape = specs[name].shape
        if value.shape == shape:
            return value
        return _fit(shape, sharding_of(mesh, specs[name].axes, shape))(value)

    return {name: fitted(name, value) for name, value in params.items()}


@functools.lru_cache(maxsize=16)
def _fit(shape: tuple[int, ...], sharding: NamedSharding) -> Any:
    """Compiled: an array cut to `shape`, or filled up to it with zeros."""

    def fit(value: jax.Array) -> jax.Array:
        kept = value[tuple(slice(size) for size in shape)]
        return jnp.pad(kept, [(0, size - part) for size, part in zip(shape, kept.shape, strict=True)])

    return jax.jit(fit, out_shardings=sharding)


def bind(params: Params, config: DecoderConfig, numerics: Numerics) -> Decoder:
    """The decoder module holding `params`, for use inside a jitted function."""
    outline = _outline(config, numerics)
    return nnx.merge(outline.definition, jax.tree.unflatten(outline.tree, [params[name] for name in outline.specs]))


def hidden_states(
    params: Params,
    config: DecoderConfig,
    numerics: Numerics,
    inputs: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    segment_ids: Int[Array, "batch length"],
) -> Float[Array, "batch length hidden"]:
    """The normalised output of the last layer, in the compute dtype. Tokens see only their own segment."""
    return bind(params, config, numerics).hidden_states(inputs, positions, segment_ids)


def logits(
    params: Params,
    config: DecoderConfig,
    numerics: Numerics,
    inputs: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    segment_ids: Int[Array, "batch length"],
) -> Float[Array, "batch length vocabulary_rows"]:
    """Unnormalised log-probabilities of the next token, float32; -inf in the config's rows of padding."""
    decoder = bind(params, config, numerics)
    return decoder.logits(decoder.hidden_states(inputs, positions, segment_ids))


class Measured(NamedTuple):
    """What a batch is worth to a model, before any sum.

    nats, squared_log_total: of each target, float32 [batch, length], not weighted; 0 where the segment id is 0 (padding).
        The latter is what a z-loss is made of (kernels/linear_cross_entropy.py).
    routing: how the routers of all layers spread the tokens over experts; None where there are none.
    """

    nats: jax.Array
    squared_log_total: jax.Array
    routing: Routing | None


def token_losses(
    params: Params, config: DecoderConfig, numerics: Numerics, batch: Mapping[str, jax.Array]
) -> Float[Array, "batch length"]:
    """Nats of each target, float32, not weighted; 0 where the segment id is 0 (padding).

    Args:
        batch: `inputs`, `targets`, `positions`, `segment_ids`, int32 [batch, length] each.
    """
    return measure(params, config, numerics, batch).nats


def measure(params: Params, config: DecoderConfig, numerics: Numerics, batch: Mapping[str, jax.Array]) -> Measured:
    """`token_losses`, and what else a loss may be made of."""
    decoder = bind(params, config, numerics)
    hidden, routing = decoder.hidden_states_and_routing(batch["inputs"], batch["positions"], batch["segment_ids"])
    losses = decoder.token_losses(hidden, batch["targets"], (batch["segment_ids"] > 0).astype(jnp.float32))
    return Measured(*losses, routing)
