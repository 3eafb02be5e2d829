"""A pipeline of named steps, each a job in a process of its own; what is done is skipped, what was begun goes on."""

import datetime
import os
import shlex
import sys
import time
from collections.abc import Sequence

from etils import epath

from cptjax.configuration import permissions, resolved_config
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.table import EVALUATION, results_table
from cptjax.files import is_local
from cptjax.processes import run_command
from cptjax.reporting.folder import RunFolder, git_state
from cptjax.reporting.metrics import read_metrics
from cptjax.reporting.progress import duration
from cptjax.studies.cost import describe_costs
from cptjax.studies.declaration import declare, describe_contrast, describe_pilot
from cptjax.studies.ending import how_it_failed, was_stopped
from cptjax.studies.grid import Grid
from cptjax.studies.grid_steps import grid_steps
from cptjax.studies.ledger import PlannedStep, plan_steps, refuse_changed, refuse_outdated, write_attempt
from cptjax.studies.long_settings import on_the_command_line, write_long_settings
from cptjax.studies.step import Step, check_steps
from cptjax.studies.text import refuse_changed_text
from cptjax.training.signals import Stopped


def study(
    output_dir: str,
    steps: Sequence[Step],
    grid: Grid | None = None,
    results: str | None = None,
    note: str = "",
    dry_run: bool = False,
) -> None:
    """Runs `steps` in order, each as `python -m cptjax.main` with its own gin files and settings.

    Every step's command is read and checked before the first one starts. A step that is done is skipped; one that was
    interrupted is started again and goes on as its job does. Ctrl-C and SIGTERM reach the step that runs.

    Args:
        output_dir: the study's folder; each step's folder is in it, by the step's name.
        grid: arms at sizes, budgets and seeds, whose steps come after `steps`; what they cost is printed before anything
            starts, and what is to be found out is stored (studies/declaration.py).
        results: the step, of the job `evaluate`, whose evaluation.jsonl is the study's table, printed at the end.
        note: a sentence printed under the table: what it does not say.

    Raises:
        ConfigurationError: a step's command is wrong; a finished step would be another one now, by its settings, by the
            steps it uses or by its text; another process works on the study.
        CptjaxError: a step failed; what was done before it is kept.
        Stopped: a signal came; the same command goes on.
    """
    listed, steps = steps, [*steps, *(grid_steps(grid) if grid else [])]
    check_steps(steps)
    folder = RunFolder(output_dir)
    planned = _plan(steps, results, folder.path)
    if grid:
        print("\n".join([*describe_contrast(grid), *describe_costs(grid), *describe_pilot(grid), ""]), flush=True)
    if dry_run:
        refuse_changed_text(planned)
        _show(planned, folder.path)
        for step in planned:
            flags = on_the_command_line(step, folder.path)
            print(f"\n{step.step.name}\n  {shlex.join(['python', '-m', 'cptjax.main', *flags])}")
            if flags != step.arguments:
                print(
                    "  (The last file is written when the study starts the step: its settings are too long for a command.)"
                )
        return

    lock = folder.hold()
    # Anew: until just now another process may have held the folder, and done steps.
    planned = _plan(steps, results, folder.path)
    refuse_changed_text(planned)
    _show(planned, folder.path)
    if unfinished := not all(step.done for step in planned):
        folder.start(resolved_config(), sys.argv, {})
        if grid:
            declare(grid, listed, folder)
    for place in range(len(steps)):
        step = _plan(steps, results, folder.path)[place]  # anew: it is told what made the steps that it uses
        if not step.done:
            print(f"\n--- {place + 1} of {len(steps)}: {step.step.name} ({step.job})", flush=True)
            _run(step, folder.path)

    planned = _plan(steps, results, folder.path)
    print(f"\n{'step':20} {'job':16} {'time':>8}")
    for step in planned:
        print(f"{step.step.name:20} {step.job:16} {duration(_seconds(step)):>8}")
    print(f"{'in all':37} {duration(sum(map(_seconds, planned))):>8}")
    if results is not None:
        print("\n" + "\n".join(results_table(read_metrics(folder.path / results / EVALUATION))))
    if note:
        print(f"\n{note}")
    if unfinished:
        folder.finish({"job": "study", "steps": {step.step.name: _seconds(step) for step in planned}})
    print(f"done: {folder.path}")
    if lock is not None:
        lock.close()


def _plan(steps: Sequence[Step], results: str | None, study: epath.Path) -> list[PlannedStep]:
    """The steps as they stand, with all refused that can be seen before any of them starts."""
    planned = plan_steps(steps, study, permissions())
    if results is not None:
        _refuse_without_table(results, planned)
    refuse_changed(planned)
    refuse_outdated(planned)
    return planned


def _refuse_without_table(results: str, planned: Sequence[PlannedStep]) -> None:
    """Refuses a study whose table would be looked for, after all its steps, where none is written."""
    found = next((step for step in planned if step.step.name == results), None)
    if found is None:
        why = "it has no step of that name"
    elif found.job != "evaluate":
        why = f"that step's job is {found.job!r}, which writes no {EVALUATION}"
    elif found.step.output is None:
        why = "that step does not write to the study's folder (its output is None)"
    else:
        return
    evaluations = [step.step.name for step in planned if step.job == "evaluate"]
    raise ConfigurationError(
        f"study.results = {results!r}, but {why}.\n"
        f"  Name a step whose job is 'evaluate' ({', '.join(evaluations) or 'this study has none'}), or leave it out."
    )


def _show(planned: Sequence[PlannedStep], study: epath.Path) -> None:
    print(f"study in {study}: {len(planned)} steps")
    for number, step in enumerate(planned, start=1):
        print(f"  {number}. {step.step.name}: {step.job}{', done before' if step.done else ''}", flush=True)


def _run(step: PlannedStep, study: epath.Path) -> None:
    """One attempt at a step, recorded when it begins and however it ends."""
    name, begin = step.step.name, time.monotonic()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")  # what the attempt is known by
    attempt = {"started": started, "seconds": 0.0, "code": None, "git": git_state()}
    write_attempt(study, step, attempt)
    write_long_settings(step, study)
    code, stopped_by = run_command(on_the_command_line(step, study), _compilation_cache(study))
    write_attempt(study, step, {**attempt, "seconds": round(time.monotonic() - begin, 1), "code": code})
    if was_stopped(code, stopped_by):
        what = "after" if code == 0 else "in"
        raise Stopped(f"the study was stopped {what} step {name!r}. Run the same command again: it goes on there.")
    if code == 0:
        return
    kind = ConfigurationError if code == ConfigurationError.exit_code else CptjaxError
    raise kind(
        f"step {name!r} of the study {how_it_failed(code, stopped_by)}; what it said stands above.\n"
        "  The steps before it are kept: the same command goes on with this one."
    )


def _compilation_cache(study: epath.Path) -> dict[str, str]:
    """Settings under which steps that run the same program compile it once."""
    if not is_local(study) or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return {}
    return {
        "JAX_COMPILATION_CACHE_DIR": str(study.absolute() / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }


def _seconds(step: PlannedStep) -> float:
    """How long the attempts at a step took, all together."""
    return sum(attempt["seconds"] for attempt in step.record["attempts"]) if step.record else 0.0
