"""SIGTERM and Ctrl-C during a run: finish the step, save, leave with exit code 75."""

import contextlib
import signal
import time
from collections.abc import Iterator

from cptjax.errors import STOPPED, CptjaxError

# Slurm, and others that end jobs, signal a supervisor and its training at once, and the supervisor passes its signal on.
_ONE_REQUEST_SECONDS = 1.0


class Stopped(CptjaxError):
    """The run was asked to stop and has saved everything; the same command goes on from there."""

    exit_code = STOPPED


class StopRequest:
    """Whether a signal has asked the run to stop, and which one."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_at_once(what: str = "before training began.") -> Iterator[None]:
    """Within it SIGTERM raises `Stopped` where the process is: for work that leaves nothing half-done when left.

    Args:
        what: where the work was, and what becomes of it, for whoever reads the message.
    """

    def leave(number, frame):
        raise Stopped(f"stopped by SIGTERM {what} Run the same command again.")

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within it SIGTERM and SIGINT are noted, not obeyed; a second one of either, a second later, ends the process as usual."""
    request, asked = StopRequest(), 0.0
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number, frame):
        nonlocal asked
        if not request:
            asked = time.monotonic()
        elif time.monotonic() - asked > _ONE_REQUEST_SECONDS:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        request.signal = signal.Signals(number).name

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
