"""Many small runs of one shape in one jitted step: seeds, learning rates and mixtures side by side.

A model of a hundred thousand parameters leaves a chip, or the two cores of a laptop, waiting for launches. The step of one run is
mapped over a leading axis of states and of batches; each run has its own rows, its own learning rate and its own guard, and
its metrics are those that it would have alone (to float tolerance: products are summed in another order). All of it lives on
one device.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cptjax.models.config import DecoderConfig
from cptjax.models.numerics import Numerics
from cptjax.training.learning_rate import LearningRate
from cptjax.training.step import Batch, step_function
from cptjax.training.update import TrainState, Update

Replicas = Any  # a pytree of arrays whose first axis counts runs


def build_rated_step(
    config: DecoderConfig,
    numerics: Numerics,
    update: Update,
    side_by_side: int,
    accumulation: int = 1,
    shardings: Any = None,
    **losses: float,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step of `side_by_side` runs that are told the learning rate of each step: runs of any schedule share it.

    step(states, batches, rates) with a first axis of runs everywhere, rates float32 [runs]; of a single run there is no
    such axis, and rates is a scalar. It donates the states.

    Args:
        update: what the runs do with their gradients; its own learning rate is not used.
        shardings: of a single run's state, so that what goes in and what comes out are alike and one program serves all steps.
    """

    def one(state: TrainState, batch: Batch, rate: jax.Array):
        mine = dataclasses.replace(update, learning_rate=lambda step: rate)
        return step_function(config, numerics, mine, accumulation, **losses)(state, batch)

    if side_by_side == 1:
        return jax.jit(one, donate_argnums=0, out_shardings=(shardings, None))
    return jax.jit(jax.vmap(one), donate_argnums=0)


def build_replicas_step(
    config: DecoderConfig,
    numerics: Numerics,
    update: Update,
    learning_rates: Sequence[LearningRate],
    accumulation: int = 1,
    sources: Sequence[str] = ("",),
    **losses: float,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step of as many runs as there are learning rates. It donates the states, and never waits for the host.

    Args:
        update: what the runs do with their gradients; its own learning rate is not used.
        losses: `router_loss` and `z_loss`, as in `step.build_train_step`.

    Returns:
        step(states, batches) -> (states, metrics), each array with a first axis of runs; as `build_train_step` otherwise.
    """
    count = len(learning_rates)
    which = jnp.arange(count, dtype=jnp.int32)

    def one(state: TrainState, batch: Batch, run: jax.Array):
        # Schedules are few small expressions: all are evaluated, and the run's own is taken.
        def rate(step: jax.Array) -> jax.Array:
            return jnp.stack([each(step) for each in learning_rates])[run]

        mine = dataclasses.replace(update, learning_rate=rate)
        return step_function(config, numerics, mine, accumulation, sources, **losses)(state, batch)

    def step(states: TrainState, batches: Batch):
        return jax.vmap(one)(states, batches, which)

    return jax.jit(step, donate_argnums=0)


def stacked(each: Sequence[Replicas]) -> Replicas:
    """Runs' states (or metrics) side by side: the first axis of every array counts runs."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def stacked_rows(each: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The runs' batches of one step, [runs, rows, ...]."""
    return {name: np.stack([batch[name] for batch in each]) for name in each[0]}


def one_of(states: Replicas, run: int) -> Replicas:
    """The state of one run, as it would be alone."""
    return jax.tree.map(lambda leaf: leaf[run], states)
