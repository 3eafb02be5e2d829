"""The two ways a run can be refused. `main` prints their message and nothing else: no traceback.

Whoever raises one says what was wrong, where it came from and what to do about it; the first line stands alone.
"""

STOPPED = 75  # exit code: stopped by a signal with everything saved; start it again
LOST = 76  # exit code: a process of the run is lost; start it again


class CptjaxError(Exception):
    """The work could not be done: a corrupt file, a full disk, a diverged run. Exit code 1."""

    exit_code = 1


class ConfigurationError(CptjaxError):
    """The command or its configuration was wrong, and nothing was started. Exit code 2."""

    exit_code = 2
