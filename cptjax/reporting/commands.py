"""The commands that made a run, as a reader can paste them into a shell."""

import os
import shlex
from collections.abc import Sequence

from cptjax.reporting.folder import CONFIG
from cptjax.reporting.run_content import RunContent

_MAIN = os.path.join("cptjax", "main.py")  # what sys.argv begins with, under python -m cptjax.main
_LONGEST = 100  # characters of a line
_COMMAND = ("python", "-m", "cptjax.main")
_SPECIAL = set('"$`\\!\n')  # what a shell looks at between double quotes


def commands(run: RunContent) -> list[tuple[str, str]]:
    """What each command does, and itself."""
    found = []
    start = run.starts[-1] if run.starts else {}
    if command := list(start.get("command", ())):
        command = [*_COMMAND, *command[1:]] if command[0].endswith(_MAIN) else command
        directory = f"cd {shlex.quote(start['directory'])}\n" if start.get("directory") else ""
        found.append(("The command of its last start", directory + shell(command)))
    checkpoint = f"--gin.CHECKPOINT={run.path!r}"
    again = f"--gin.OUTPUT_DIR={run.path.rstrip('/') + '_again'!r}"
    reproduce = (*_COMMAND, "--gin_file=gin/jobs/reproduce.gin", checkpoint)
    return [
        *found,
        ("The same, from the configuration that the run kept", shell([*_COMMAND, f"--gin_file={run.path}/{CONFIG}"])),
        ("What of its environment, base and text is different where you are", shell(reproduce)),
        ("The run once more, and its numbers against these", shell([*reproduce, "--gin.RERUN=True", again])),
    ]


def shell(command: Sequence[str]) -> str:
    """A command as one would type it: gin's quotes within the shell's, a flag a line where it is long."""
    words = [_quoted(word) for word in command]
    line = " ".join(words)
    if len(line) <= _LONGEST:
        return line
    flags = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return " \\\n  ".join([" ".join(words[:flags]), *words[flags:]])


def _quoted(word: str) -> str:
    name, equals, value = word.partition("=")
    if "'" in value and not _SPECIAL.intersection(value) and shlex.quote(name) == name:
        return f'{name}{equals}"{value}"'
    return shlex.quote(word)
