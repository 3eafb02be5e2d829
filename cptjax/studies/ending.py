"""What the exit code of a job that we ran says: whether it was stopped, and in words how it failed."""

import signal

from cptjax.training.signals import Stopped

_INTERRUPTED = (-signal.SIGINT, 128 + signal.SIGINT)  # Python's own end on Ctrl-C, seen directly and through a shell


def was_stopped(code: int, stopped_by: str | None) -> bool:
    """Whether the job ended because it was asked to, so that the same command goes on from there.

    A job that was asked to stop and then failed (a save that the disk refuses) has failed.

    Args:
        code: its exit code, negative where a signal ended it; stopped_by: the first signal that was passed on to it.
    """
    if stopped_by is None:
        return code == Stopped.exit_code
    return code in (0, Stopped.exit_code, -signal.Signals[stopped_by], *_INTERRUPTED)


def how_it_failed(code: int, stopped_by: str | None) -> str:
    """ "failed with exit code 2", and what it had been sent before."""
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    return how if stopped_by is None else f"{how} after {stopped_by} had asked it to stop"
