"""A run's folder: the command and environment that made it, against what is here; and the run once more, on request."""

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from cptjax.configuration import permissions
from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import is_local, read_json, write_file
from cptjax.processes import run_command
from cptjax.reporting.folder import CONFIG, FINISHED, RERUN, now
from cptjax.reporting.reproduction import (
    Check,
    base_checks,
    compare_logs,
    environment_checks,
    starts_of,
    text_checks,
)
from cptjax.sharding.mesh import describe_devices
from cptjax.studies.ending import how_it_failed, was_stopped
from cptjax.studies.ledger import recorded_steps
from cptjax.training.signals import Stopped


def reproduce(checkpoint: str, output_dir: str | None = None, rerun: bool = False, dry_run: bool = False) -> int | None:
    """Says what made the run (or study, step by step) in the folder `checkpoint`, and what of that is different here.

    With `rerun` the run's own configuration is run again into `output_dir`, and what it logs is compared with what the
    first run logged, number by number. A rerun that was interrupted goes on; one that is finished is compared once more.

    Returns:
        1 where something without which the run cannot be repeated is gone or changed (its text, its base, its
        configuration) or none of it is known; or where the numbers of the second run differ, or there are none.

    Raises:
        ConfigurationError: no run is in `checkpoint`; `output_dir` is missing, or holds something else than this rerun.
        CptjaxError: the second run failed.
        Stopped: a signal came; the same command goes on.
    """
    here = os.getcwd()
    run = _absolute(epath.Path(checkpoint).expanduser(), here)
    starts = starts_of(run)
    start, again = starts[-1], None
    if rerun:
        again = _second_folder(run, output_dir, starts[0], here)
    print(f"{run}: started {start['time']} on {start['host']}")
    print(f"  in {start.get('directory', 'a folder it does not tell')}\n  {shlex.join(start['command'])}")
    directory = start.get("directory", "")
    if not os.path.isdir(directory):
        print(f"  That folder is not here: relative paths are looked up in {here}.")
        directory = here

    arguments = (*permissions(), f"--gin_file={run / CONFIG}")
    steps = recorded_steps(run)
    os.chdir(directory)  # the run's relative paths are relative to where it was started
    try:
        known: dict[str, list[str]] = {}
        checks = [_configuration(arguments)]
        made_of = [*base_checks(run), *text_checks(run, known)]
        for step in steps:
            checks.append(_of_step(step, _configuration(step["command"][3:])))  # after python -m cptjax.main
            folder = run / step["name"]
            made_of += [_of_step(step, check) for check in (*base_checks(folder), *text_checks(folder, known))]
    finally:
        os.chdir(here)
    # The process that runs it again must find the accelerator free: then this one does not look.
    checks += [*made_of, *environment_checks(start, None if rerun else describe_devices(jax.devices()))]
    for check in checks:
        print(f"  {'same   ' if check.same else 'DIFFERS'}  {check.what}: {_both(check)}")
    unfinished = [] if (run / FINISHED).exists() else ["it never finished"]
    unfinished += [f"its step {step['name']!r} {_unfinished(step)}" for step in steps if not step["done"]]
    broken = [check.what for check in checks if check.decisive and not check.same]
    other = [check.what for check in checks if not check.decisive and not check.same]
    if broken:
        print(f"cannot be repeated here as it was: {'; '.join(broken)}")
    elif not made_of:
        print("whether it can be repeated is not known: what it holds names neither a base nor text to compare.")
    elif other:
        print(f"can be repeated; its numbers may differ, for these do: {', '.join(other)}")
    else:
        print(
            "can be repeated: all is as it was." if not unfinished else "can be repeated: what it began is as it was."
        )
    for what in unfinished:
        print(f"note: {what}; there is no more of it to repeat.")
    if broken or not (made_of or rerun):
        return 1
    if again is None:
        return None
    arguments = (*arguments, f"--gin.OUTPUT_DIR={str(again)!r}")
    if dry_run:
        print(f"would run: {shlex.join(['python', '-m', 'cptjax.main', *arguments])}")
        return None
    return _run_again(run, again, arguments, directory, starts[0])


def _second_folder(run: epath.Path, output_dir: str | None, first_start: Mapping[str, Any], here: str) -> epath.Path:
    """Where the run is run again: a new folder, or that of an earlier rerun of just this run.

    Raises:
        ConfigurationError: it is anything else; what stands there would pass for the second run's.
    """
    if output_dir is None:
        raise ConfigurationError("RERUN = True, but no OUTPUT_DIR says where to: name a new folder.")
    again = _absolute(epath.Path(output_dir).expanduser(), here)
    first, second = (epath.Path(os.path.realpath(path)) if is_local(path) else path for path in (run, again))
    if second == first or first in second.parents:
        where = "the run's own folder" if second == first else "within the run's own folder"
        raise ConfigurationError(
            f"OUTPUT_DIR = '{again}' is {where}; the run would be compared with itself.\n  Name a new folder."
        )
    if not again.exists():
        return again
    if (again / RERUN).exists():
        if read_json(again / RERUN).get("first_start") == first_start:
            return again
        holds = f"a rerun of another run, {read_json(again / RERUN).get('of')}, or of what this run was before"
    elif not again.is_dir():
        holds = "a file"
    elif not (names := [path.name for path in again.iterdir() if not path.name.endswith(".part")]):
        return again
    else:
        holds = f"{', '.join(sorted(names)[:5])}, and not from running '{run}' again"
    raise ConfigurationError(
        f"OUTPUT_DIR = '{again}' is not new: what stands there would pass for the second run.\n"
        f"  It holds {holds}.\n  Name a new folder."
    )


def _run_again(
    run: epath.Path, again: epath.Path, arguments: Sequence[str], directory: str, first_start: Mapping[str, Any]
) -> int | None:
    if (again / RERUN).exists() and (again / FINISHED).exists():
        print(
            f"{again} holds the run done again already (begun {read_json(again / RERUN)['begun']}): it is compared once\n"
            "  more and not run; name a new OUTPUT_DIR to run it."
        )
    else:
        if not (again / RERUN).exists():
            again.mkdir(parents=True, exist_ok=True)
            mark = {"of": str(run), "begun": now(), "first_start": first_start}
            write_file(again / RERUN, json.dumps(mark, indent=1) + "\n")
        code, stopped_by = run_command(arguments, directory=directory)
        if was_stopped(code, stopped_by):
            raise Stopped("the run was stopped. Run the same command again: it goes on there.")
        if code:
            raise CptjaxError(f"the run {how_it_failed(code, stopped_by)}; what it said stands above.")
    compared = compare_logs(run, again)
    if not compared:
        print(
            f"no log was compared: '{run}' holds no metrics.jsonl and no evaluation.jsonl. The second run is in '{again}'."
        )
        return 1
    for place, found in compared.items():
        if not found.values:
            print(f"{place}: all {found.lines:,} lines are those of the first run, to the last bit (but the speed)")
        else:
            what = f"{found.values:,} values differ, by at most {found.largest:.2g} relative"
            print(f"{place}: {what}; first {found.first}")
    return 1 if any(found.values for found in compared.values()) else None


def _configuration(arguments: Sequence[str]) -> Check:
    """Whether this version still takes a configuration."""
    try:
        configure(parse_command(arguments))
    except ConfigurationError as error:
        return Check("configuration", "accepted", str(error).splitlines()[0], decisive=True)
    return Check("configuration", "accepted", "accepted", decisive=True)


def _of_step(step: Mapping[str, Any], check: Check) -> Check:
    return dataclasses.replace(check, what=f"{step['name']}: {check.what}")


def _unfinished(step: Mapping[str, Any]) -> str:
    """How the last attempt at a step that is not done ended."""
    code = step["attempts"][-1]["code"]
    if code is None:
        return "was killed"
    return "was stopped" if was_stopped(code, None) else how_it_failed(code, None)


def _absolute(path: epath.Path, here: str) -> epath.Path:
    return path if not is_local(path) else epath.Path(os.path.join(here, path))


def _both(check: Check) -> str:
    return check.now if check.same else f"{check.then} then, {check.now} now"
