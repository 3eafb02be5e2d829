"""Many small runs in one step against the same runs one after another: tokens in a second, taking turns."""

import statistics
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.model import abstract_weights, initialize, parameter_counts
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh
from cptjax.training.optimizer import AdamW
from cptjax.training.replicas import RUNS, build_replicas_step, mesh_of_runs, stacked, stacked_rows
from cptjax.training.schedule import Phase, Schedule, compile_schedule
from cptjax.training.state import abstract_state, fresh_state
from cptjax.training.step import build_train_step
from cptjax.training.update import Update

_AGREE = 1e-4  # relative, of losses after the same steps: float32 sums in another order


def replica_steps(
    model: DecoderConfig, runs: float = 16, rows: float = 8, length: float = 256, steps: float = 10, seed: int = 0
) -> dict[str, Any]:
    """Times `runs` runs of one shape in one step, and one after another, turn by turn, on one accelerator or all cores.

    A CPU's devices are threads: in one step each has its share of the runs, and a run alone has all cores work on each product.

    Args:
        rows, length: of each run's batch; every row is one document. Runs differ in seed and rows; one learning rate, so
            that those alone share one compiled step too.
        steps: timed turns of each, after two that are not.

    Raises:
        ConfigurationError: the devices do not divide the runs. CptjaxError: the losses are not the same.
    """
    runs, rows, length, steps = (
        whole_number(x, name, minimum=1)
        for x, name in ((runs, "RUNS"), (rows, "ROWS"), (length, "LENGTH"), (steps, "STEPS"))
    )
    devices = jax.devices() if jax.default_backend() == "cpu" else jax.devices()[:1]
    if runs % len(devices):
        raise ConfigurationError(
            f"RUNS = {runs}, which the {len(devices)} devices do not divide: name a multiple of {len(devices)}."
        )
    mesh, shared = build_mesh({"fsdp": 1}, devices[:1]), mesh_of_runs(devices)
    update = _update(model, rows * length)
    rates = np.full(runs, update.learning_rate.peak, np.float32)
    with jax.set_mesh(mesh):
        abstract = abstract_state(model, update, mesh)

        def fresh(run: int):
            return fresh_state(initialize(model, seed + run, mesh), abstract, update)

        batches = [_batch(seed + run, model.vocabulary, rows, length) for run in range(runs)]
        alone = build_train_step(model, Numerics(), update, mesh, abstract)
        single = [fresh(run) for run in range(runs)]
        together = build_replicas_step(model, Numerics(), update, shared)
        states = stacked([jax.device_get(fresh(run)) for run in range(runs)], shared)
        side_by_side = jax.device_put(stacked_rows(batches), NamedSharding(shared, PartitionSpec(RUNS)))
        batches = [jax.device_put(batch) for batch in batches]
        seconds: dict[str, list[float]] = {"alone": [], "together": []}
        for turn in range(steps + 2):
            begin, losses = time.perf_counter(), []
            for run in range(runs):
                single[run], metrics = alone(single[run], batches[run])
                losses.append(float(metrics["loss"]))
            between = time.perf_counter()
            with jax.set_mesh(shared):
                states, metrics = together(states, side_by_side, rates)
            mine = np.asarray(metrics["loss"])
            end = time.perf_counter()
            if np.abs(mine / losses - 1).max() > _AGREE:
                raise CptjaxError(f"the runs differ: losses of {mine} side by side, {losses} alone.")
            if turn >= 2:
                seconds["alone"].append(between - begin)
                seconds["together"].append(end - between)
    tokens = runs * rows * length
    one, many = (statistics.median(seconds[name]) for name in ("alone", "together"))
    counts = parameter_counts(model)
    return {
        "parameters": counts.total,
        "parameters_non_embedding": counts.non_embedding,
        "runs": runs,
        "devices": len(devices),
        "batch_of_each": f"{rows} x {length}",
        "tokens_per_second_alone": tokens / one,
        "tokens_per_second_together": tokens / many,
        "times_faster": one / many,
    }


def _update(model: DecoderConfig, tokens: int) -> Update:
    rate = compile_schedule(Schedule(1e-3, "peak", (Phase("hold"),)), 1000, tokens)
    return Update(AdamW(weight_decay=0.1).transformation(abstract_weights(model)), rate)


def _batch(seed: int, vocabulary: int, rows: int, length: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(seed).integers(0, vocabulary, (rows, length + 1)).astype(np.int32)
    return {
        "inputs": ids[:, :-1],
        "targets": ids[:, 1:],
        "segment_ids": np.ones((rows, length), np.int32),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "weights": np.ones((rows, length), np.float32),
    }
