"""A command, read and checked in full: what `main` runs, and what a study asks of all its steps before the first starts."""

import dataclasses

from cptjax.configuration.flags import Command
from cptjax.configuration.imports import check_imports
from cptjax.configuration.macros import check_circles, check_unreferenced
from cptjax.configuration.rendering import render
from cptjax.configuration.resolution import Resolution, job_name, resolve_program
from cptjax.configuration.statements import read_program
from cptjax.configuration.types import check_types


@dataclasses.dataclass(frozen=True)
class Configured:
    """A command that may be run: its job, and every value the job reads as gin text.

    `gin_text` says beside each value where it was set; `settings` does not, so that it changes only when a value does.
    """

    job: str
    resolution: Resolution
    gin_text: str
    settings: str


def configure(command: Command) -> Configured:
    """Reads the command's gin files and flags and resolves what its job reads. Imports that job; runs nothing.

    Raises:
        ConfigurationError: the command or a gin file is wrong.
    """
    program = read_program(command)
    check_imports(program, command.allow_imports)
    check_circles(program)
    job = job_name(program)
    check_unreferenced(program)
    resolution = resolve_program(program, job, command.allow_imports)
    check_types(resolution)
    return Configured(job, resolution, render(resolution), render(resolution, places=False))
