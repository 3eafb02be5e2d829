"""Memory that is nobody's file: what a process has allocated (RssAnon), and a process with all its descendants at its most.

Pages of files that are mapped count as the machine's, which takes them back when it wants to.
"""

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from cptjax.errors import CptjaxError
from cptjax.processes import child_environment

_EVERY = 0.05  # seconds between two looks


def allocated(process: int | str = "self") -> int | None:
    """Bytes of anonymous memory of a process; None where it is gone, or the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    except (OSError, StopIteration):
        return None


def run_and_watch(command: Sequence[str]) -> tuple[str, int | None]:
    """Runs a command to its end; what it printed, and the most bytes that it and its descendants had allocated together.

    Raises:
        CptjaxError: it failed.
    """
    child = subprocess.Popen(
        command,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    most: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_EVERY):
            found = [allocated(each) for each in _family(child.pid)]
            most[:] = [max([*most, sum(size for size in found if size)])]

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    printed, complaint = child.communicate()
    ended.set()
    watching.join()
    if child.returncode:
        raise CptjaxError("a part of the benchmark failed:\n  " + "\n  ".join(complaint.splitlines()[-8:]))
    return printed, (most or [0])[0] or None


def _family(process: int) -> list[int]:
    """A process and its descendants."""
    found = [process]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, path.read_text(encoding="utf-8").split())
            except OSError:  # ended meanwhile
                continue
    return found
