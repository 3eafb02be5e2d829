"""Flags of `python -m cptjax.main`. Imports nothing heavy: `--help` answers at once."""

import dataclasses
import difflib
import shlex
from collections.abc import Mapping, Sequence

from cptjax.errors import ConfigurationError

FLAGS = {
    "--gin_file": "a gin file; repeat it, later files win",
    "--gin.NAME": "a macro (--gin.TRAIN_TOKENS=2e6) or a parameter (--gin.scope/fn.arg=VALUE); the last one wins",
    "--gin_search_paths": "folders, comma-separated, where relative gin paths are looked for after the current one",
    "--allow_imports": "packages, comma-separated, that gin files may import besides cptjax, jax, flax and optax",
    "--coordinator_address": "of a run on several processes: host:port of the first; it is JAX_COORDINATOR_ADDRESS",
    "--num_processes": "how many there are; JAX_NUM_PROCESSES",
    "--process_id": "which of them this one is, counted from 0; JAX_PROCESS_ID (docs/training.md)",
    "--dry_run": "say what would be done, and start nothing",
    "--help": "this text",
}
_PROCESSES = {
    "--coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "--num_processes": "JAX_NUM_PROCESSES",
    "--process_id": "JAX_PROCESS_ID",
}


@dataclasses.dataclass(frozen=True)
class Command:
    """The command line, taken apart. `bindings` holds (name, value text) pairs in the order they were given.

    `processes` holds, by the environment's names, what was said of a run on several processes.
    """

    gin_files: tuple[str, ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()
    search_paths: tuple[str, ...] = ()
    allow_imports: tuple[str, ...] = ()
    dry_run: bool = False
    help: bool = False
    arguments: tuple[str, ...] = ()
    processes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def permissions(self) -> tuple[str, ...]:
        """The flags that say what gin files may import and where they are looked for."""
        given = {"--allow_imports": self.allow_imports, "--gin_search_paths": self.search_paths}
        return tuple(f"{flag}={','.join(values)}" for flag, values in given.items() if values)

    @property
    def run(self) -> str:
        """What the commands of one run's processes have in common: its gin files, and where it writes."""
        where = [f"--gin.{name}={value}" for name, value in self.bindings if name == "OUTPUT_DIR"]
        return shlex.join([*(f"--gin_file={name}" for name in self.gin_files), *where[-1:]])

    def __str__(self) -> str:
        return shlex.join(["python", "-m", "cptjax.main", *self.arguments])


def parse_command(arguments: Sequence[str]) -> Command:
    """Takes `arguments` (without the program's name) apart.

    Raises:
        ConfigurationError: an unknown flag (with the nearest one), a flag without its value, a stray word.
    """
    gin_files: list[str] = []
    bindings: list[tuple[str, str]] = []
    search_paths: list[str] = []
    allow_imports: list[str] = []
    processes: dict[str, str] = {}
    switches = {"--dry_run": False, "--help": False}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        if flag == "-h":
            flag = "--help"
        if flag.startswith("--gin."):
            name = flag.split(".", 1)[1]
            if not equals or not name:
                raise ConfigurationError(f"{argument} has no value.\n  Write it with an equals sign: {flag}=VALUE")
            bindings.append((name.strip(), value))
        elif flag in switches:
            if value.lower() not in ("", "true", "1", "false", "0"):
                raise ConfigurationError(f"{argument}: {flag} is given alone, or as {flag}=true or {flag}=false.")
            switches[flag] = value.lower() not in ("false", "0")
        elif flag in ("--gin_file", "--gin_search_paths", "--allow_imports", *_PROCESSES):
            if not equals:
                value = rest.pop(0) if rest and not rest[0].startswith("--") else ""
            if not value:
                raise ConfigurationError(f"{flag} has no value.\n  {flag}: {FLAGS[flag]}.")
            parts = [part.strip() for part in value.split(",") if part.strip()]
            if flag == "--gin_file":
                gin_files.append(value)
            elif flag in _PROCESSES:
                processes[_PROCESSES[flag]] = value
            else:
                (search_paths if flag == "--gin_search_paths" else allow_imports).extend(parts)
        else:
            raise ConfigurationError(_unknown(argument, flag))
    return Command(
        tuple(gin_files),
        tuple(bindings),
        tuple(search_paths),
        tuple(allow_imports),
        switches["--dry_run"],
        switches["--help"],
        tuple(arguments),
        processes,
    )


def _unknown(argument: str, flag: str) -> str:
    """The message for what is not a flag of ours, with the most likely intention."""
    if not flag.startswith("-"):
        hint = f"Gin files are given as --gin_file={argument}" if argument.endswith(".gin") else "Every word is a flag."
        return f"{argument!r} is not a flag.\n  {hint}\n  python -m cptjax.main --help lists them."
    near = difflib.get_close_matches(flag, list(FLAGS), n=1)
    name = flag.lstrip("-")
    if name.isupper():
        return f"there is no flag {flag}.\n  Macros are set as --gin.{name}=VALUE"
    hint = f"  Did you mean {near[0]}?\n" if near else ""
    return f"there is no flag {flag}.\n{hint}  python -m cptjax.main --help lists them."
