"""The train step: one jitted function from (state, batch) to (state, metrics), compiled once."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, measure
from cptjax.models.numerics import Numerics
from cptjax.sharding.rules import constrain
from cptjax.training.batch_hash import batch_hash
from cptjax.training.norms import group_norms
from cptjax.training.state import TrainState, state_shardings
from cptjax.training.update import Update

Batch = dict[str, jax.Array]


class Summed(NamedTuple):
    """What a step finds out about its batch.

    nats, weights: float32 [sources], each source's weighted nats and its weights' sum.
    gradients: of the whole batch's quotient, and of what is added to it.
    router_loss, z_loss: what is added, without their coefficients; None where there are no experts, or no z-loss is asked for.
    """

    nats: jax.Array
    weights: jax.Array
    gradients: Params
    router_loss: jax.Array | None
    z_loss: jax.Array | None


def loss_and_gradients(
    params: Params,
    batch: Batch,
    config: DecoderConfig,
    numerics: Numerics,
    accumulation: int,
    sources: int = 1,
    router_loss: float = 0.0,
    z_loss: float = 0.0,
) -> Summed:
    """Weighted nats of each source in the batch, its weights' sum, and the gradient of the whole batch's quotient.

    With accumulation the batch is read in that many slices; sums are added and divided once by the weight of the whole
    global batch, so that slices (and hosts) with fewer valid tokens count for less, and the result is that of one slice.

    Args:
        batch: `inputs`, `targets`, `segment_ids`, `positions` int32 and `weights` float32, all [rows, length]; `source`
            int32 [rows] where there is more than one.
        router_loss: the coefficient of the routers' load-balancing loss (`experts.Routing.loss`), which the gradient has
            beside the quotient. It is not linear in the tokens: of accumulated slices, each one's counts by its weight.
        z_loss: the coefficient of the weighted mean of log(softmax's denominator) ** 2, which the gradient has beside it too.
    """

    def weighted_nats(params, part):
        measured = measure(params, config, numerics, part)
        by_row = jnp.sum(measured.nats * part["weights"], axis=1)
        total = jnp.sum(by_row)
        of_sources = total[None] if sources == 1 else by_source(by_row, part)
        squares = jnp.sum(measured.squared_log_total * part["weights"]) if z_loss else None
        balance = None if measured.routing is None else measured.routing.loss() * jnp.sum(part["weights"])
        if squares is not None:
            total = total + z_loss * squares
        if balance is not None and router_loss:
            total = total + router_loss * balance
        return total, (of_sources, balance, squares)

    def by_source(by_row, part):
        mine = part["source"][:, None] == jnp.arange(sources)
        return jnp.sum(jnp.where(mine, by_row[:, None], 0.0), axis=0)

    row_weights = jnp.sum(batch["weights"], axis=1)
    weights = jnp.sum(row_weights)[None] if sources == 1 else by_source(row_weights, batch)
    nats_and_gradients = jax.grad(weighted_nats, has_aux=True)
    if accumulation == 1:
        gradients, (nats, *added) = nats_and_gradients(params, batch)
    else:
        # Row r goes to slice r % accumulation: each device cuts its own rows, and nothing moves between devices.
        slices = {
            name: jnp.moveaxis(x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:]), 1, 0)
            for name, x in batch.items()
        }

        def add(total, part):
            part = {name: constrain(x, "batch", *(None,) * (x.ndim - 1)) for name, x in part.items()}
            return jax.tree.map(jnp.add, total, nats_and_gradients(params, part)), None

        nothing = [jnp.zeros((), jnp.float32) if there else None for there in (config.experts is not None, z_loss)]
        zeros = (jax.tree.map(jnp.zeros_like, params), (jnp.zeros((sources,), jnp.float32), *nothing))
        (gradients, (nats, *added)), _ = jax.lax.scan(add, zeros, slices)
    scale = 1.0 / jnp.maximum(jnp.sum(weights), 1.0)
    gradients, added = jax.tree.map(lambda x: x * scale, (gradients, added))
    return Summed(nats, weights, gradients, *added)


def build_train_step(
    config: DecoderConfig,
    numerics: Numerics,
    update: Update,
    mesh: Mesh,
    abstract: TrainState,
    accumulation: int = 1,
    sources: Sequence[str] = ("",),
    router_loss: float = 0.0,
    z_loss: float = 0.0,
    compiler_flags: Mapping[str, str | bool | int] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step. It donates the state it is given, and never waits for the host.

    Args:
        sources: names of what `batch["source"]` counts. A batch may hold `stop` (processes.asked_by) beside its rows, whose sum
            is a metric then: what all processes read of one step is the same.
        router_loss, z_loss: see `loss_and_gradients`.
        compiler_flags: of the compiler, name -> value, beside its own choices.

    Returns:
        step(state, batch) -> (state, metrics), metrics being float32 scalars: `loss` (nats per token over the global
        batch), `learning_rate`, `gradient_norm` (before clipping), `parameter_norm`, `tokens` (valid ones), the guard's
        (`guard.judge`), and, where there are several sources, `loss/<source>` and `tokens/<source>`; norms by group
        (`norms.group_norms`) of gradients, parameters and changes; where there are experts, `router_loss`, the routers'
        load-balancing loss, and `z_loss` if it is asked for, both without their coefficients and no part of `loss`; and
        `batch_hash`, uint32 [2], of what was read.
    """
    shardings = state_shardings(abstract)
    everywhere = NamedSharding(mesh, PartitionSpec())
    step = step_function(config, numerics, update, accumulation, sources, router_loss, z_loss)
    options = dict(compiler_flags) if compiler_flags else None
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere), compiler_options=options)


def step_function(
    config: DecoderConfig,
    numerics: Numerics,
    update: Update,
    accumulation: int = 1,
    sources: Sequence[str] = ("",),
    router_loss: float = 0.0,
    z_loss: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The step as a pure function, not yet compiled: what `build_train_step` jits, and replicas.py maps over many runs."""

    def train_step(state: TrainState, batch: Batch):
        params, batch = state["params"], dict(batch)
        asked = batch.pop("stop", None)
        summed = loss_and_gradients(params, batch, config, numerics, accumulation, len(sources), router_loss, z_loss)
        nats, weights, gradients = summed.nats, summed.weights, summed.gradients
        tokens = jnp.sum(weights)
        loss = jnp.sum(nats) / jnp.maximum(tokens, 1.0)
        state, metrics, changes = update.apply(state, loss, gradients)
        metrics |= {"loss": loss, "tokens": tokens, "parameter_norm": optax.tree.norm(params)}
        metrics["batch_hash"] = batch_hash(batch)
        added = {"router_loss": summed.router_loss, "z_loss": summed.z_loss}
        metrics |= {name: value for name, value in added.items() if value is not None}
        if len(sources) > 1:
            for name, n, w in zip(sources, nats, weights, strict=True):
                metrics |= {f"loss/{name}": n / jnp.maximum(w, 1.0), f"tokens/{name}": w}
        for kind, values in (("gradient", gradients), ("parameter", params), ("update", changes)):
            metrics |= group_norms(kind, values)
        if asked is not None:
            metrics["stop"] = jnp.sum(asked)
        return state, metrics

    return train_step
