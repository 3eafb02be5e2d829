"""The train step: one jitted function from (state, batch) to (state, metrics), compiled once."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, token_losses_and_routing
from cptjax.models.numerics import Numerics
from cptjax.sharding.rules import constrain
from cptjax.training.batch_hash import batch_hash
from cptjax.training.norms import group_norms
from cptjax.training.state import TrainState, state_shardings
from cptjax.training.update import Update

Batch = dict[str, jax.Array]


def loss_and_gradients(
    params: Params,
    batch: Batch,
    config: DecoderConfig,
    numerics: Numerics,
    accumulation: int,
    sources: int = 1,
    router_loss: float = 0.0,
) -> tuple[jax.Array, jax.Array, Params, jax.Array | None]:
    """Weighted nats of each source in the batch, its weights' sum, and the gradient of the whole batch's quotient.

    With accumulation the batch is read in that many slices; sums are added and divided once by the weight of the whole
    global batch, so that slices (and hosts) with fewer valid tokens count for less, and the result is that of one slice.

    Args:
        batch: `inputs`, `targets`, `segment_ids`, `positions` int32 and `weights` float32, all [rows, length]; `source`
            int32 [rows] where there is more than one.
        router_loss: the coefficient of the routers' load-balancing loss (`experts.Routing.loss`), which the gradient has
            beside the quotient. It is not linear in the tokens: of accumulated slices, each one's counts by its weight.

    Returns:
        float32 [sources] nats and weights, the gradients, and the load-balancing loss without its coefficient; None where
        there are no experts.
    """

    def weighted_nats(params, part):
        losses, routing = token_losses_and_routing(params, config, numerics, part)
        by_row = jnp.sum(losses * part["weights"], axis=1)
        total = jnp.sum(by_row)
        of_sources = total[None] if sources == 1 else by_source(by_row, part)
        if routing is None:
            return total, (of_sources, None)
        balance = routing.loss() * jnp.sum(part["weights"])
        return total + router_loss * balance if router_loss else total, (of_sources, balance)

    def by_source(by_row, part):
        mine = part["source"][:, None] == jnp.arange(sources)
        return jnp.sum(jnp.where(mine, by_row[:, None], 0.0), axis=0)

    row_weights = jnp.sum(batch["weights"], axis=1)
    weights = jnp.sum(row_weights)[None] if sources == 1 else by_source(row_weights, batch)
    nats_and_gradients = jax.grad(weighted_nats, has_aux=True)
    if accumulation == 1:
        gradients, (nats, balance) = nats_and_gradients(params, batch)
    else:
        # Row r goes to slice r % accumulation: each device cuts its own rows, and nothing moves between devices.
        slices = {
            name: jnp.moveaxis(x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:]), 1, 0)
            for name, x in batch.items()
        }

        def add(total, part):
            part = {name: constrain(x, "batch", *(None,) * (x.ndim - 1)) for name, x in part.items()}
            return jax.tree.map(jnp.add, total, nats_and_gradients(params, part)), None

        no_balance = None if config.experts is None else jnp.zeros((), jnp.float32)
        zeros = (jax.tree.map(jnp.zeros_like, params), (jnp.zeros((sources,), jnp.float32), no_balance))
        (gradients, (nats, balance)), _ = jax.lax.scan(add, zeros, slices)
    scale = 1.0 / jnp.maximum(jnp.sum(weights), 1.0)
    balance = None if balance is None else balance * scale
    return nats, weights, jax.tree.map(lambda gradient: gradient * scale, gradients), balance


def build_train_step(
    config: DecoderConfig,
    numerics: Numerics,
    update: Update,
    mesh: Mesh,
    abstract: TrainState,
    accumulation: int = 1,
    sources: Sequence[str] = ("",),
    router_loss: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step. It donates the state it is given, and never waits for the host.

    Args:
        sources: names of what `batch["source"]` counts. A batch may hold `stop` (processes.asked_by) beside its rows, whose sum
            is a metric then: what all processes read of one step is the same.
        router_loss: see `loss_and_gradients`.

    Returns:
        step(state, batch) -> (state, metrics), metrics being float32 scalars: `loss` (nats per token over the global
        batch), `learning_rate`, `gradient_norm` (before clipping), `parameter_norm`, `tokens` (valid ones), the guard's
        (`guard.judge`), and, where there are several sources, `loss/<source>` and `tokens/<source>`; norms by group
        (`norms.group_norms`) of gradients, parameters and changes; where there are experts, `router_loss`, the routers'
        load-balancing loss without its coefficient, which is no part of `loss`; and `batch_hash`, uint32 [2], of what was read.
    """
    shardings = state_shardings(abstract)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def train_step(state: TrainState, batch: Batch):
        params, batch = state["params"], dict(batch)
        asked = batch.pop("stop", None)
        nats, weights, gradients, balance = loss_and_gradients(
            params, batch, config, numerics, accumulation, len(sources), router_loss
        )
        tokens = jnp.sum(weights)
        loss = jnp.sum(nats) / jnp.maximum(tokens, 1.0)
        state, metrics, changes = update.apply(state, loss, gradients)
        metrics |= {"loss": loss, "tokens": tokens, "parameter_norm": optax.tree.norm(params)}
        metrics["batch_hash"] = batch_hash(batch)
        if balance is not None:
            metrics["router_loss"] = balance
        if len(sources) > 1:
            for name, n, w in zip(sources, nats, weights, strict=True):
                metrics |= {f"loss/{name}": n / jnp.maximum(w, 1.0), f"tokens/{name}": w}
        for kind, values in (("gradient", gradients), ("parameter", params), ("update", changes)):
            metrics |= group_norms(kind, values)
        if asked is not None:
            metrics["stop"] = jnp.sum(asked)
        return state, metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, everywhere))
