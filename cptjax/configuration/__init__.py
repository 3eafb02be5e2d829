"""From a command line to one job under gin, and what the running job may ask about its own configuration.

gin is known here and nowhere else in the library: what it binds are plain functions and dataclasses.

    flags        the command line, taken apart           catalogue   the jobs there are, and `--help`
    statements   gin files as plain statements           imports     what a gin file may import and reach
    names        selectors -> functions and classes      macros      set and unused, required and not given
    resolution   what one job reads of all that          rendering   that, as the gin text of the run
    values       numbers as people write them            types       values against annotations
    configured   all of it for one command
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What `main` decided: the job, the gin text that gin was given, and the command that led to it.

    `permissions` are the flags by which the command allowed more than usual; a child of the job is given them too.
    """

    job: str = ""
    gin_text: str = ""
    command_line: str = ""
    permissions: tuple[str, ...] = ()


_resolved = Resolved()


def set_resolved(resolved: Resolved) -> None:
    """Called once, by `main`, before the job starts."""
    global _resolved
    _resolved = resolved


def resolved_config() -> str:
    """The gin text of this run: everything the job reads, each line with where it was set; it can be run again.

    Empty where no command was given (a job called from Python).
    """
    return _resolved.gin_text


def permissions() -> tuple[str, ...]:
    """The command's --allow_imports and --gin_search_paths, to be given on to the commands that this job starts."""
    return _resolved.permissions


def command_line() -> str:
    """The command as it could be typed again, or an empty string where no command was given."""
    return _resolved.command_line
