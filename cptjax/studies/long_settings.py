"""Settings that are too long for a command line: written into a gin file of the study's, which the step's command names.

Linux takes an argument of 131,072 bytes at most (MAX_ARG_STRLEN), however many there are; the runs of a large grid are more.
"""

import re
from collections.abc import Mapping

from etils import epath

from cptjax.files import write_file
from cptjax.studies.ledger import STEPS, PlannedStep

LONGEST = 2**16  # bytes of an argument that stays on the command line
_MACRO = re.compile(r"--gin\.([A-Za-z_]\w*)=(.*)", re.DOTALL)


def on_the_command_line(step: PlannedStep, study: epath.Path) -> tuple[str, ...]:
    """The flags that the step's process is given: macros that are too long are in the file `long_file` of the step."""
    long = _long_settings(step)
    if not long:
        return step.arguments
    short = [argument for argument in step.arguments if argument not in long]
    return (
        *short,
        f"--gin_file={long_file(step, study)}",
    )  # the last file: it wins over those of the step, as flags do


def write_long_settings(step: PlannedStep, study: epath.Path) -> None:
    """Writes the file, where there is something to write."""
    long = _long_settings(step)
    if not long:
        return
    path = long_file(step, study)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# Settings of the step {step.step.name!r} that are too long for a command line.", *long.values()]
    write_file(path, "\n".join(lines) + "\n")


def long_file(step: PlannedStep, study: epath.Path) -> epath.Path:
    """Where the step's long settings are: beside its record."""
    return study / STEPS / f"{step.step.name}.gin"


def _long_settings(step: PlannedStep) -> Mapping[str, str]:
    """Of each argument that is a macro and too long, the statement of a gin file."""
    found = {}
    for argument in step.arguments:
        if len(argument.encode()) > LONGEST and (macro := _MACRO.fullmatch(argument)):
            found[argument] = f"{macro[1]} = {macro[2]}"
    return found
