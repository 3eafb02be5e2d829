"""SIGTERM and Ctrl-C during a run: finish the step, save, leave with exit code 75."""

import contextlib
import signal
from collections.abc import Iterator

from cptjax.errors import CptjaxError


class Stopped(CptjaxError):
    """The run was asked to stop and has saved everything; the same command goes on from there."""

    exit_code = 75


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
    """Within it SIGTERM and SIGINT are noted, not obeyed; a second one of either ends the process as usual."""
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number, frame):
        if request:
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
