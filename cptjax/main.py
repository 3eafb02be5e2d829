"""Flags -> gin -> one job.

    python -m cptjax.main --gin_file=gin/recipes/reuse.gin --gin.HF_CHECKPOINT="'/data/llama'" ...
    python -m cptjax.main --help

Exit codes: 0 done; 1 failed; 2 the command or configuration was wrong; 75 stopped by a signal with everything saved; 76 one of
the run's several processes is lost. After 75 and 76 the same command goes on from what is saved.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cptjax.configuration import Resolved, set_resolved
from cptjax.configuration.flags import Command, parse_command
from cptjax.errors import STOPPED, ConfigurationError, CptjaxError
from cptjax.hosts.alone import do_alone, is_together
from cptjax.hosts.finding import Found, find_processes
from cptjax.hosts.supervisor import supervise
from cptjax.hosts.worker import meet_supervisor, tell_ending
from cptjax.processes import end_with_parent

if TYPE_CHECKING:
    from cptjax.configuration.configured import Configured


def run_job(command: Command, found: Found | None = None) -> Any:
    """Configures gin from the command and calls its job once, with `dry_run=True` where the command says so.

    Of several processes, as `found` says, only the first calls a job that is not done together (hosts/alone.py).

    Returns:
        What the job returns: None, or an exit code.

    Raises:
        ConfigurationError: the command or a gin file is wrong; nothing has been started.
        CptjaxError: from the job itself.
    """
    from cptjax.configuration.configured import configure

    configured = configure(command)
    if found is not None and not is_together(configured.resolution.function) and not do_alone(configured.job, found):
        return None
    return run_configured(configured, command)


def run_configured(configured: "Configured", command: Command) -> Any:
    """The same for a command that is read and checked already."""
    import gin  # here, so that --help answers without it

    resolution = configured.resolution
    gin.clear_config()
    try:
        gin.parse_config(configured.gin_text)
        gin.finalize()
    except (ValueError, TypeError, SyntaxError) as error:
        raise ConfigurationError(f"gin refuses this configuration: {error}") from None
    set_resolved(Resolved(configured.job, configured.gin_text, str(command), command.permissions))

    function = gin.get_configurable(resolution.function) if resolution.settings else resolution.function
    return function(dry_run=True) if command.dry_run else function()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code. Refusals are printed as one message; a bug keeps its traceback.

    One process of several is only the supervisor of the one that does the work (hosts/supervisor.py).
    """
    code = CptjaxError.exit_code
    supervised = meet_supervisor()
    end_with_parent()
    try:
        code = _main(sys.argv[1:] if arguments is None else arguments, supervised)
    finally:
        tell_ending(code)
    return code


def _main(arguments: Sequence[str], supervised: bool) -> int:
    try:
        command = parse_command(arguments)
        os.environ.update(command.processes)
        if command.help or not command.arguments:
            from cptjax.configuration.catalogue import help_text

            print(help_text())
            return 0 if command.help else ConfigurationError.exit_code
        found = None if command.dry_run else find_processes()
        if found is not None and not supervised:
            return supervise(arguments, found, command.run)
        result = run_job(command, found)
        return result if isinstance(result, int) else 0
    except CptjaxError as error:
        message = message_of(error)
        print(message if error.exit_code == STOPPED else f"error: {message}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a disk, a permission, a network: the machine's fault, and not a bug
        print(f"error: the operating system refuses: {message_of(error)}", file=sys.stderr)
        return CptjaxError.exit_code
    except KeyboardInterrupt:
        print("stopped: run the same command again.", file=sys.stderr)
        return STOPPED


def message_of(error: BaseException) -> str:
    """What an error says, without the chain of configurables that gin appends to it."""
    return str(error).partition("\n  In call to configurable '")[0]


if __name__ == "__main__":
    sys.exit(main())
