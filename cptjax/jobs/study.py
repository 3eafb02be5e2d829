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
from cptjax.studies.ledger import PlannedStep, plan_steps, refuse_changed, write_attempt
from cptjax.studies.step import Step, check_steps
from cptjax.training.signals import Stopped


def study(
    output_dir: str, steps: Sequence[Step], results: str | None = None, note: str = "", dry_run: bool = False
) -> None:
    """Runs `steps` in order, each as `python -m cptjax.main` with its own gin files and settings.

    Every step's command is read and checked before the first one starts. A step that is done is skipped; one that was
    interrupted is started again and goes on as its job does. Ctrl-C and SIGTERM reach the step that runs.

    Args:
        output_dir: the study's folder; each step's folder is in it, by the step's name.
        results: the step whose evaluation.jsonl is the study's table, printed at the end.
        note: a sentence printed under the table: what it does not say.

    Raises:
        ConfigurationError: a step's command is wrong, or a finished step would be another one now.
        CptjaxError: a step failed; what was done before it is kept.
        Stopped: a signal came; the same command goes on.
    """
    check_steps(steps)
    if results is not None and results not in [step.name for step in steps]:
        raise ConfigurationError(f"the study's results are those of {results!r}, but it has no step of that name.")
    folder = RunFolder(output_dir)
    planned = plan_steps(steps, folder.path, permissions())
    refuse_changed(planned)
    print(f"study in {folder.path}: {len(planned)} steps")
    for number, step in enumerate(planned, start=1):
        print(f"  {number}. {step.step.name}: {step.job}{', done before' if step.done else ''}", flush=True)
    if dry_run:
        for step in planned:
            print(f"\n{step.step.name}\n  {shlex.join(['python', '-m', 'cptjax.main', *step.arguments])}")
        return

    lock = folder.hold()
    if unfinished := not all(step.done for step in planned):
        folder.start(resolved_config(), sys.argv, {})
    for number, step in enumerate(planned, start=1):
        if not step.done:
            print(f"\n--- {number} of {len(planned)}: {step.step.name} ({step.job})", flush=True)
            _run(step, folder.path)

    planned = plan_steps(steps, folder.path, permissions())
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


def _run(step: PlannedStep, study: epath.Path) -> None:
    """One attempt at a step, recorded however it ends."""
    name, begin = step.step.name, time.monotonic()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    code, stopped_by = run_command(step.arguments, _compilation_cache(study))
    seconds = round(time.monotonic() - begin, 1)
    write_attempt(study, step, {"started": started, "seconds": seconds, "code": code, "git": git_state()})
    if code == 0 and stopped_by is None:
        return
    if code == 0 or code == Stopped.exit_code or stopped_by is not None:
        what = "after" if code == 0 else "in"
        raise Stopped(f"the study was stopped {what} step {name!r}. Run the same command again: it goes on there.")
    kind = ConfigurationError if code == ConfigurationError.exit_code else CptjaxError
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    raise kind(
        f"step {name!r} of the study {how}; what it said stands above.\n"
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
