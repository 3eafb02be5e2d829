"""Many small runs of one shape in one jitted step: seeds, learning rates and mixtures side by side.

A model of a hundred thousand parameters leaves a chip waiting for launches, and the cores of a laptop waiting for one another. The
step of one run is mapped over a leading axis of states and of batches; each run has its own rows, its own learning rate and its
own guard, and its metrics are those that it would have alone (to float tolerance: products are summed in another order).
Several devices share the runs out among them, each with whole runs: nothing goes between them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cptjax.kernels.attention.choice import chosen
from cptjax.models.config import DecoderConfig
from cptjax.models.numerics import Numerics
from cptjax.training.step import Batch, step_function
from cptjax.training.update import TrainState, Update

Replicas = Any  # a pytree of arrays whose first axis counts runs
_UNDER_VMAP = ("reference", "pallas_tpu")
RUNS = "runs"  # the axis of a mesh of devices that have whole runs


def mesh_of_runs(devices: Sequence[jax.Device]) -> Mesh:
    """Devices that share runs out among them. It is in force (`jax.set_mesh`) where their step is called."""
    return Mesh(np.asarray(devices), (RUNS,), axis_types=(AxisType.Auto,))


def build_single_step(
    config: DecoderConfig, numerics: Numerics, update: Update, shardings: Any, accumulation: int = 1, **losses: float
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step of a run that is told the learning rate of each step: runs of any schedule share it.

    step(state, batch, rate); it donates the state.

    Args:
        update: what runs do with their gradients; its own learning rate is not used.
        shardings: of the state, so that what goes in and what comes out are alike and one program serves all steps.
        losses: `router_loss` and `z_loss`, as in `step.build_train_step`.
    """
    one = _rated(config, numerics, update, accumulation, losses)
    return jax.jit(one, donate_argnums=0, out_shardings=(shardings, None))


def build_replicas_step(
    config: DecoderConfig, numerics: Numerics, update: Update, mesh: Mesh, accumulation: int = 1, **losses: float
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """The same of many runs: step(states, batches, rates) with a first axis of runs everywhere, rates float32 [runs].

    It never waits for the host. The metrics are those of `build_train_step`, each with a first axis of runs.

    Args:
        mesh: `mesh_of_runs`; its size divides the number of runs.
    """
    one = _rated(config, numerics, update, accumulation, losses)

    def some(states: TrainState, batches: Batch, rates: jax.Array):
        if one_by_one(mesh, chosen(numerics.attention)):
            return jax.lax.map(lambda run: one(*run), (states, batches, rates))
        return jax.vmap(one)(states, batches, rates)

    own = PartitionSpec(RUNS)
    all_runs = jax.shard_map(some, mesh=mesh, in_specs=own, out_specs=own, check_vma=False)
    placed = NamedSharding(mesh, own)
    return jax.jit(all_runs, donate_argnums=0, in_shardings=placed, out_shardings=placed)


def one_by_one(mesh: Mesh, attention: str) -> bool:
    """Whether a device takes its runs one after another within the step.

    A CPU does, whose products of many small matrices are slow; and any device with attention that nobody has tried under vmap.
    """
    return mesh.devices.flat[0].platform == "cpu" or attention not in _UNDER_VMAP


def _rated(
    config: DecoderConfig, numerics: Numerics, update: Update, accumulation: int, losses: Mapping[str, float]
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    def one(state: TrainState, batch: Batch, rate: jax.Array):
        mine = dataclasses.replace(update, learning_rate=lambda step: rate)
        return step_function(config, numerics, mine, accumulation, **losses)(state, batch)

    return one


def stacked(each: Sequence[TrainState], mesh: Mesh) -> Replicas:
    """Runs' states, in the host's memory, side by side on `mesh_of_runs`: the first axis of every array counts runs."""
    placed = NamedSharding(mesh, PartitionSpec(RUNS))
    return jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves), placed), *each)


def stacked_rows(each: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The runs' batches of one step, [runs, rows, ...]."""
    return {name: np.stack([batch[name] for batch in each]) for name in each[0]}


def one_of(states: Replicas, run: int, shardings: Any) -> Replicas:
    """The state (or a part of it) of one run, as it would be alone, placed by `shardings`."""
    return jax.tree.map(lambda leaf, sharding: jax.device_put(jax.device_get(leaf[run]), sharding), states, shardings)
