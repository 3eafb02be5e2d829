"""A run's folder: the command and environment that made it, against what is here; and the run once more, on request."""

import os
import shlex

import jax
from etils import epath

from cptjax.configuration import permissions
from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.processes import run_command
from cptjax.reporting.folder import CONFIG
from cptjax.reporting.reproduction import (
    Check,
    base_checks,
    compare_logs,
    environment_checks,
    last_start,
    text_checks,
)
from cptjax.sharding.mesh import describe_devices
from cptjax.training.signals import Stopped


def reproduce(checkpoint: str, output_dir: str | None = None, rerun: bool = False, dry_run: bool = False) -> int | None:
    """Says what made the run (or study) in the folder `checkpoint`, and what of that is different here.

    With `rerun` the run's own configuration is run again into `output_dir`, and what it logs is compared with what the
    first run logged, number by number.

    Returns:
        1 where something without which the run cannot be repeated is gone or changed: its text, its base, its
        configuration; or where the numbers of the second run differ.
    """
    run = epath.Path(checkpoint).expanduser()
    start = last_start(run)
    if rerun and output_dir is None:
        raise ConfigurationError("RERUN = True, but no OUTPUT_DIR says where to: name a new folder.")
    directory = start.get("directory", "")
    directory = directory if os.path.isdir(directory) else os.getcwd()
    print(f"{run}: started {start['time']} on {start['host']}")
    print(f"  in {start.get('directory', 'a folder it does not tell')}\n  {shlex.join(start['command'])}")

    arguments = (*permissions(), f"--gin_file={os.path.abspath(run / CONFIG)}")
    here = os.getcwd()
    os.chdir(directory)  # the run's relative paths are relative to where it was started
    try:
        checks = [_configuration(arguments), *base_checks(_absolute(run, here)), *text_checks(_absolute(run, here))]
    finally:
        os.chdir(here)
    # The process that runs it again must find the accelerator free: then this one does not look.
    checks += environment_checks(start, None if rerun else describe_devices(jax.devices()))
    for check in checks:
        print(f"  {'same   ' if check.same else 'DIFFERS'}  {check.what}: {_both(check)}")
    broken = [check.what for check in checks if check.decisive and not check.same]
    other = [check.what for check in checks if not check.decisive and not check.same]
    if broken:
        print(f"cannot be repeated here as it was: {'; '.join(broken)}")
        return 1
    print(
        f"can be repeated; its numbers may differ, for these do: {', '.join(other)}"
        if other
        else "can be repeated: all is as it was."
    )
    if not rerun:
        return None
    again = _absolute(epath.Path(output_dir).expanduser(), here)
    arguments = (*arguments, f"--gin.OUTPUT_DIR={str(again)!r}")
    if dry_run:
        print(f"would run: {shlex.join(['python', '-m', 'cptjax.main', *arguments])}")
        return None
    return _run_again(_absolute(run, here), again, arguments, directory)


def _run_again(run: epath.Path, again: epath.Path, arguments: tuple[str, ...], directory: str) -> int | None:
    code, stopped_by = run_command(arguments, directory=directory)
    if code == Stopped.exit_code or stopped_by is not None:
        raise Stopped("the run was stopped. Run the same command again: it goes on there.")
    if code:
        raise CptjaxError(f"the run failed with exit code {code}; what it said stands above.")
    different = False
    for place, found in compare_logs(run, again).items():
        if not found.values:
            print(f"{place}: all {found.lines:,} lines are those of the first run, to the last bit (but the speed)")
            continue
        different = True
        print(f"{place}: {found.values:,} values differ, by at most {found.largest:.2g} relative; first {found.first}")
    return 1 if different else None


def _configuration(arguments: tuple[str, ...]) -> Check:
    """Whether this version still takes the run's configuration."""
    try:
        configure(parse_command(arguments))
    except ConfigurationError as error:
        return Check("configuration", "accepted", str(error).splitlines()[0], decisive=True)
    return Check("configuration", "accepted", "accepted", decisive=True)


def _absolute(path: epath.Path, here: str) -> epath.Path:
    return path if "://" in str(path) else epath.Path(os.path.join(here, path))


def _both(check: Check) -> str:
    return check.now if check.same else f"{check.then} then, {check.now} now"
