"""What a training process tells the supervisor that started it: that it joins the others, and how it is about to end."""

import contextlib
import os

SUPERVISOR = "CPTJAX_SUPERVISOR"  # the file descriptor to tell it by; only the supervised process itself sees it
JOINING, ENDING = "joining", "ending"
_pipe: int | None = None


def meet_supervisor() -> bool:
    """Whether this process has a supervisor. To be called first: processes that this one starts are not supervised by it."""
    global _pipe
    named = os.environ.pop(SUPERVISOR, "")
    if named.isdigit():
        _pipe = int(named)
        os.set_inheritable(_pipe, False)
    return _pipe is not None


def tell_joining() -> None:
    """Before waiting for the other processes of the run: from here on their loss is ours."""
    _tell(JOINING)


def tell_ending(code: int) -> None:
    """Before leaving with `code`: what JAX does on the way out waits for the others, who may wait for us."""
    _tell(f"{ENDING} {code}")


def _tell(line: str) -> None:
    if _pipe is not None:
        with contextlib.suppress(OSError):  # a supervisor that is gone has taken care of us
            os.write(_pipe, f"{line}\n".encode())
