"""What a training process tells the supervisor that started it, if one did: whether it joins the others, and how it ends."""

import contextlib
import os
import time
from pathlib import Path

SUPERVISOR = "CPTJAX_SUPERVISOR"  # the file descriptor to tell it by; only the supervised process itself sees it
JOINING, ALONE, ENDING = "joining", "alone", "ending"
_pipe: int | None = None
_is_command = False  # whether this process is a command of ours, and no Python session that calls a job


def meet_supervisor() -> bool:
    """Whether this process, a command of ours, has a supervisor. To be called first: what it starts is not supervised by it."""
    global _pipe, _is_command
    _is_command = True
    named = os.environ.pop(SUPERVISOR, "")
    if named.isdigit():
        _pipe = int(named)
        os.set_inheritable(_pipe, False)
    return _pipe is not None


def tell_joining() -> None:
    """Before waiting for the other processes of the run: from here on their loss is ours."""
    _tell(JOINING)


def tell_alone() -> None:
    """That no other process does what this one does: how it ends is its own affair."""
    _tell(ALONE)


def tell_ending(code: int) -> None:
    """Before leaving with `code`: what JAX does on the way out waits for the others, who may wait for us."""
    _tell(f"{ENDING} {code}")


def launched() -> float:
    """When the command was launched, in seconds of `time.time`: we, or our supervisor.

    Now, where the system does not tell, or a Python session calls a job: how old that is says nothing of the job.
    """
    if not _is_command:
        return time.time()
    process = os.getpid() if _pipe is None else os.getppid()
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    except (OSError, ValueError, AttributeError):
        return time.time()


def _tell(line: str) -> None:
    if _pipe is not None:
        with contextlib.suppress(OSError):  # a supervisor that is gone has taken care of us
            os.write(_pipe, f"{line}\n".encode())
