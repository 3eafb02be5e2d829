"""TensorBoard's event file: scalars, written where they are called, so that a disk's refusal is raised there."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def _not_importing(name: str) -> Iterator[None]:
    """Within it `import name` fails, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]


# Where torch is installed, tensorboardX imports it for the name of a type: more than a second of every run's start.
with _not_importing("torch"):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar

_FLUSH_SECONDS = 10.0


class EventFile:
    """A new event file in `folder`; what earlier ones have of `purge_step` and after is forgotten by TensorBoard."""

    def __init__(self, folder: Path, purge_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        # Its file names tell starts apart by the second only, and the later of two would overwrite the earlier.
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{time.time_ns()}")
        self._writer.write_event(
            Event(step=purge_step, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
        )
        self._flushed = time.monotonic()

    def add(self, name: str, value: float, step: int) -> None:
        """One point of the curve `name`."""
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=scalar(name, value)))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hands what was written to the disk."""
        self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes and closes."""
        self._writer.close()
