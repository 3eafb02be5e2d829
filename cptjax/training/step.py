"""The train step: one jitted function from (state, batch) to (state, metrics), compiled once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.models.config import DecoderConfig, Numerics
from cptjax.models.model import Params, token_losses
from cptjax.sharding.rules import constrain
from cptjax.training.learning_rate import LearningRate
from cptjax.training.state import TrainState, state_shardings

Batch = dict[str, jax.Array]


def loss_and_gradients(
    params: Params, batch: Batch, config: DecoderConfig, numerics: Numerics, accumulation: int
) -> tuple[jax.Array, jax.Array, Params]:
    """Weighted nats of the batch, the weights' sum, and the gradient of their quotient.

    With accumulation the batch is read in that many slices; sums are added and divided once by the weight of the whole
    global batch, so that slices (and hosts) with fewer valid tokens count for less, and the result is that of one slice.

    Args:
        batch: `inputs`, `targets`, `segment_ids`, `positions` int32 and `weights` float32, all [rows, length].
    """

    def weighted_nats(params, part):
        nats = token_losses(params, config, numerics, part)
        return jnp.sum(nats * part["weights"])

    nats_and_gradients = jax.value_and_grad(weighted_nats)
    weight = jnp.sum(batch["weights"])
    if accumulation == 1:
        nats, gradients = nats_and_gradients(params, batch)
    else:
        # Row r goes to slice r % accumulation: each device cuts its own rows, and nothing moves between devices.
        slices = {
            name: jnp.moveaxis(x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:]), 1, 0)
            for name, x in batch.items()
        }

        def add(total, part):
            part = {name: constrain(x, "batch", *(None,) * (x.ndim - 1)) for name, x in part.items()}
            return jax.tree.map(jnp.add, total, nats_and_gradients(params, part)), None

        zeros = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, params))
        (nats, gradients), _ = jax.lax.scan(add, zeros, slices)
    scale = 1.0 / jnp.maximum(weight, 1.0)
    return nats, weight, jax.tree.map(lambda gradient: gradient * scale, gradients)


def build_train_step(
    config: DecoderConfig,
    numerics: Numerics,
    transformation: optax.GradientTransformation,
    learning_rate: LearningRate,
    mesh: Mesh,
    abstract: TrainState,
    accumulation: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step. It donates the state it is given, and never waits for the host.

    A step whose loss or gradient is not finite changes neither parameters nor moments (decided on the device); the
    counter moves on, and `skipped` is 1 in its metrics.

    Returns:
        step(state, batch) -> (state, metrics), metrics being float32 scalars: `loss` (nats per token over the global
        batch), `learning_rate`, `gradient_norm` (before clipping), `parameter_norm`, `tokens` (valid ones), `skipped`.
    """
    shardings = state_shardings(abstract)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def train_step(state: TrainState, batch: Batch):
        params = state["params"]
        nats, weight, gradients = loss_and_gradients(params, batch, config, numerics, accumulation)
        loss, norm = nats / jnp.maximum(weight, 1.0), optax.tree.norm(gradients)
        rate = learning_rate(state["step"])
        updates, optimizer = transformation.update(gradients, state["optimizer"], params)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)

        def keep(new, old):
            return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        state = {
            "step": state["step"] + 1,
            "params": keep(jax.tree.map(lambda p, u: p - rate * u, params, updates), params),
            "optimizer": keep(optimizer, state["optimizer"]),
        }
        metrics = {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "parameter_norm": optax.tree.norm(params),
            "tokens": weight,
            "skipped": 1.0 - finite.astype(jnp.float32),
        }
        return state, metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, everywhere))
