"""Many small runs of one model in one process: a study's runs, one after another or side by side.

Each is the run that the job `train` would make of it, to float tolerance: its own rows, schedule and start, and a folder of
its own with its checkpoints and lineage. What a process costs (imports, compilation, opening the text) is paid once.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cptjax.checkpoints.source import write_model_folder
from cptjax.checkpoints.store import CheckpointStore
from cptjax.data.batch import batch
from cptjax.data.rows import RowReader
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.documents import DocumentLosses, document_losses
from cptjax.reporting.metrics import MetricsWriter
from cptjax.training.plan import RunPlan
from cptjax.training.records import checkpoint_metadata
from cptjax.training.replicas import (
    Replicas,
    build_replicas_step,
    build_single_step,
    mesh_of_runs,
    one_of,
    stacked,
    stacked_rows,
)
from cptjax.training.signals import Stopped, StopRequest
from cptjax.training.start import starting_state
from cptjax.training.state import abstract_state, state_shardings
from cptjax.training.update import TrainState

DOCUMENTS = "documents.json"  # of a run's folder: by source what it makes of each held-out document
DIVERGED = "diverged"  # of a run's finished.json: why it was given up
JOB = "train_group"  # of a run's run.json: a group made it
_LOGGED = ("loss", "learning_rate", "gradient_norm", "tokens", "skipped", "refused_in_a_row")
_FETCHED_AT_ONCE = 16  # steps whose metrics are fetched together: the device does not wait for the host


@dataclasses.dataclass(frozen=True)
class GroupRun:
    """A run of a group: its plan, and the steps before its last that are saved too (a trunk's, for its branches)."""

    plan: RunPlan
    save_at: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.plan.folder.path.name


def train_runs(
    runs: Sequence[GroupRun],
    side_by_side: int | None,
    config_text: str,
    command: Sequence[str],
    stop: StopRequest,
    may_diverge: bool = False,
) -> None:
    """Trains the runs that are not finished. A run that was interrupted begins again; those that are finished stay.

    Args:
        side_by_side: so many runs of equal length in one step; None: all of those on one accelerator, one by one elsewhere. Several
            devices share them out, each with whole runs; what they do not divide is trained run by run, cut by the mesh.
        config_text, command: what each run's folder says it was made by.
        may_diverge: a run that diverges is given up and marked as done (`DIVERGED`), and the others go on.

    Raises:
        ConfigurationError: `side_by_side` that the devices do not divide, or that the mesh leaves no room for.
        Stopped: a signal came. CptjaxError: a run diverged: as many of its steps in a row as its guard has patience for were
            refused, or its held-out loss is not finite.
    """
    todo = [run for run in runs if run.plan.folder.finished() is None]
    if not todo:
        return
    mesh, config, numerics = todo[0].plan.mesh, todo[0].plan.config, todo[0].plan.run.numerics
    widest = side_by_side or (1 if jax.default_backend() == "cpu" or mesh.size > 1 else len(todo))
    _check_width(widest, mesh)
    steps: dict[tuple, Callable] = {}
    shared = mesh_of_runs(mesh.devices.flatten())
    with jax.set_mesh(mesh):
        for together in batches_of_runs(todo, widest, mesh.size):
            first, update = together[0].plan, together[0].plan.update()
            alone = len(together) == 1
            kind = (alone, update.stage_begins)
            if kind not in steps:
                accumulation = first.run.accumulation
                losses = {"router_loss": first.router_loss, "z_loss": first.run.z_loss}
                if alone:
                    places = state_shardings(abstract_state(config, update, mesh))
                    steps[kind] = build_single_step(config, numerics, update, places, accumulation, **losses)
                else:
                    steps[kind] = build_replicas_step(config, numerics, update, shared, accumulation, **losses)
            for run in together:
                run.plan.folder.start(config_text, command, {"platform": jax.default_backend()}, JOB)
            _train(together, steps[kind], mesh if alone else shared, stop, may_diverge)


def _check_width(widest: int, mesh: Mesh) -> None:
    if widest == 1 or mesh.size == 1:
        return
    if jax.process_count() > 1:
        raise ConfigurationError(f"SIDE_BY_SIDE = {widest}: runs are trained side by side by one process.")
    if cut := [f"{name} ({mesh.shape[name]})" for name in ("context", "tensor") if mesh.shape[name] > 1]:
        raise ConfigurationError(
            f"SIDE_BY_SIDE = {widest} gives each device whole runs, and MESH cuts them over {' and '.join(cut)}.\n"
            "  Leave one of the two out."
        )
    if widest % mesh.size:
        raise ConfigurationError(
            f"SIDE_BY_SIDE = {widest}, which the {mesh.size} devices do not divide: name a multiple of {mesh.size}, or 1."
        )


def batches_of_runs(runs: Sequence[GroupRun], widest: int, devices: int) -> list[list[GroupRun]]:
    """Runs that are trained together: of equal length and stages, saved at the same steps, `widest` at most.

    As many of them as the devices divide; the rest one by one.
    """
    alike: dict[tuple, list[GroupRun]] = {}
    for run in runs:
        alike.setdefault((run.plan.steps, run.save_at, run.plan.update().stage_begins), []).append(run)
    batches = []
    for same in alike.values():
        while same:
            most = min(widest, len(same))
            together = most - most % devices or 1
            batches.append(same[:together])
            same = same[together:]
    return batches


def _train(runs: Sequence[GroupRun], step, steps_on: Mesh, stop: StopRequest, may_diverge: bool) -> None:
    """Args: steps_on: the mesh that is in force where the step is called; else it is the plan's."""
    plans = [run.plan for run in runs]
    alone = len(runs) == 1
    states = []
    for plan in plans:
        abstract = abstract_state(plan.config, plan.update(), plan.mesh)
        places = state_shardings(abstract)
        # A store that cannot be resumed from: what an interrupted run had saved is left out of account.
        nothing = CheckpointStore(plan.folder.path / "nothing")
        state, _ = starting_state(plan.run.start, plan.source, nothing, plan.config, plan.update(), abstract, plan.mesh)
        states.append(state if alone else jax.device_get(state))
        write_model_folder(plan.folder.path, plan.original_config, plan.model_folder)
    state = state if alone else stacked(states, steps_on)
    del states
    readers = [{name: RowReader(plan.prepared[name].train) for name in plan.data.names} for plan in plans]
    rates = np.stack([plan.learning_rate.at(np.arange(plan.steps)) for plan in plans], axis=1).astype(np.float32)
    from cptjax.reporting import events  # noqa: F401  (tensorboardX takes seconds to import: not while steps are timed)

    begin, waiting = time.monotonic(), []
    diverged: dict[int, str] = {}
    with contextlib.ExitStack() as open_files:
        writers = [open_files.enter_context(contextlib.closing(MetricsWriter(plan.folder.path))) for plan in plans]
        stores = [open_files.enter_context(CheckpointStore(plan.folder.checkpoints, keep=None)) for plan in plans]
        for number in range(plans[0].steps):
            if stop:
                raise Stopped(f"stopped by {stop.signal}; finished runs are kept. Run the same command again.")
            rows = [batch(its, plan.data, number) for its, plan in zip(readers, plans, strict=True)]
            for each in rows:
                del each["source"]  # runs that read other sources share the step
            given = rows[0] if alone else stacked_rows(rows)
            with jax.set_mesh(steps_on):
                state, metrics = step(state, given, rates[number, 0] if alone else rates[number])
            waiting.append({name: metrics[name] for name in _LOGGED})
            if number == 0:
                jax.block_until_ready(metrics)
                begin = time.monotonic()  # without the compilation
            done = number + 1
            if len(waiting) == _FETCHED_AT_ONCE or done == plans[0].steps:
                diverged = {**_log(plans, writers, waiting, done, alone), **diverged}
                waiting = []
                if diverged and not may_diverge:
                    raise CptjaxError(next(iter(diverged.values())))
                if len(diverged) == len(plans):
                    break
            if done in runs[0].save_at:
                _save(plans, stores, state, None if alone else places, done)
        jax.block_until_ready(state)
        seconds = max(time.monotonic() - begin, 1e-9)
        timed = (plans[0].steps - 1) * plans[0].batch_tokens * len(runs)
        _save(plans, stores, state, None if alone else places, done)
        for index, (plan, writer) in enumerate(zip(plans, writers, strict=True)):
            if index in diverged:
                _give_up(plan, done, diverged[index])
                continue
            params = state["params"] if alone else one_of(state["params"], index, places["params"])
            _finish(plan, writer, params, timed / seconds if timed else None, may_diverge)


def _log(
    plans: Sequence[RunPlan], writers: Sequence[MetricsWriter], waiting: Sequence[Mapping], done: int, alone: bool
) -> dict[int, str]:
    """Writes the metrics of the last steps. Returns which runs their guards have no more patience with, and what to say."""
    first, lost = done - len(waiting), {}
    for offset, metrics in enumerate(jax.device_get(list(waiting))):
        for index, (plan, writer) in enumerate(zip(plans, writers, strict=True)):
            step, numbers = first + offset + 1, {name: x if alone else x[index] for name, x in metrics.items()}
            writer.log(step, numbers)
            if int(numbers["refused_in_a_row"]) == plan.run.guard.patience:
                lost[index] = (
                    f"'{plan.folder.path}': {plan.run.guard.patience} steps one after another, up to step {step:,}, were not"
                    " finite or stood out, and were skipped.\n"
                    "  Lower its learning rate, or raise SPIKE_SIGMAS or SPIKE_PATIENCE."
                )
    return lost


def _save(
    plans: Sequence[RunPlan], stores: Sequence[CheckpointStore], state: TrainState | Replicas, places: Any, step: int
) -> None:
    """Args: places: where a run's own state lives; None: `state` is that of the only run."""
    for index, (plan, store) in enumerate(zip(plans, stores, strict=True)):
        verb = type(plan.run.start).__name__.lower()
        own = state if places is None else one_of(state, index, places)
        store.save(step, own, checkpoint_metadata(plan, verb, step))
    for store in stores:
        store.wait()


def _finish(plan: RunPlan, writer: MetricsWriter, params, tokens_per_second: float | None, may_diverge: bool) -> None:
    """Measures every source's held-out documents, and marks the run as done."""
    measured, by_source = {}, {}
    for name, source in plan.prepared.items():
        if source.validation is None:
            continue
        found = document_losses(params, plan.config, plan.run.numerics, RowReader(source.validation), plan.mesh)
        by_source[name] = found
        measured[f"validation/{name}/loss"] = found.total.loss
        measured[f"validation/{name}/bits_per_byte"] = found.total.bits_per_byte
    if not np.isfinite(list(measured.values())).all():
        why = (
            f"'{plan.folder.path}': the held-out loss is not finite.\n"
            "  Its learning rate is too high for it; remove the folder after lowering it."
        )
        if not may_diverge:
            raise CptjaxError(why)
        _give_up(plan, plan.steps, why)
        return
    writer.log(plan.steps, measured)
    plan.folder.write(DOCUMENTS, json.dumps({name: _plain(found) for name, found in by_source.items()}) + "\n")
    speed = None if tokens_per_second is None else round(tokens_per_second, 1)
    plan.folder.finish({"job": JOB, "steps": plan.steps, "tokens_per_second": speed, **measured})


def _give_up(plan: RunPlan, steps: int, why: str) -> None:
    """Marks a diverged run as done after so many steps, of which there is nothing to measure."""
    plan.folder.finish({"job": JOB, "steps": steps, "tokens_per_second": None, DIVERGED: why})


def _plain(found: DocumentLosses) -> dict[str, list]:
    return {
        "names": list(found.names),
        "nats": found.nats.tolist(),
        "tokens": found.tokens.tolist(),
        "bytes": found.bytes.tolist(),
    }
