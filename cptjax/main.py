"""Flags -> gin -> one job.

    python -m cptjax.main --gin_file=gin/recipes/reuse.gin --gin.HF_CHECKPOINT="'/data/llama'" ...
    python -m cptjax.main --help

Exit codes: 0 done; 1 failed; 2 the command or configuration was wrong; 75 stopped by a signal with everything saved.
"""

import sys
from collections.abc import Sequence
from typing import Any

from cptjax.configuration import Resolved, set_resolved
from cptjax.configuration.flags import Command, parse_command
from cptjax.errors import ConfigurationError, CptjaxError

STOPPED = 75


def run_job(command: Command) -> Any:
    """Configures gin from the command and calls its job once, with `dry_run=True` where the command says so.

    Returns:
        What the job returns: None, or an exit code.

    Raises:
        ConfigurationError: the command or a gin file is wrong; nothing has been started.
        CptjaxError: from the job itself.
    """
    import gin  # here, so that --help answers without it

    from cptjax.configuration.imports import check_imports
    from cptjax.configuration.macros import check_circles, check_unreferenced
    from cptjax.configuration.rendering import render
    from cptjax.configuration.resolution import job_name, resolve_program
    from cptjax.configuration.statements import read_program
    from cptjax.configuration.types import check_types

    program = read_program(command)
    check_imports(program, command.allow_imports)
    check_circles(program)
    job = job_name(program)
    check_unreferenced(program)
    resolution = resolve_program(program, job, command.allow_imports)
    check_types(resolution)
    gin_text = render(resolution)

    gin.clear_config()
    try:
        gin.parse_config(gin_text)
        gin.finalize()
    except (ValueError, TypeError, SyntaxError) as error:
        raise ConfigurationError(f"gin refuses this configuration: {error}") from None
    set_resolved(Resolved(job, gin_text, str(command)))

    function = gin.get_configurable(resolution.function) if resolution.settings else resolution.function
    return function(dry_run=True) if command.dry_run else function()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code. Refusals are printed as one message; a bug keeps its traceback."""
    try:
        command = parse_command(sys.argv[1:] if arguments is None else arguments)
        if command.help or not command.arguments:
            from cptjax.configuration.catalogue import help_text

            print(help_text())
            return 0 if command.help else ConfigurationError.exit_code
        result = run_job(command)
        return result if isinstance(result, int) else 0
    except CptjaxError as error:
        # gin appends the chain of configurables that an exception came through; the message stands without it.
        message = str(error).partition("\n  In call to configurable '")[0]
        print(message if error.exit_code == STOPPED else f"error: {message}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a disk, a permission, a network: the machine's fault, and not a bug
        message = str(error).partition("\n  In call to configurable '")[0]
        print(f"error: the operating system refuses: {message}", file=sys.stderr)
        return CptjaxError.exit_code
    except KeyboardInterrupt:
        print("stopped: run the same command again.", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
