"""Child processes that are asked to stop whenever we are, and that never outlive us."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_PARENT = "CPTJAX_PARENT"  # the process that a child belongs to
_WATCH_SECONDS = 1.0
# glibc asks for huge pages for what it gets from the system, where that leaves it to programs ("madvise"). A step of a small
# model on a CPU takes a hundred megabytes anew each time, and a quarter of its time goes into their first touch, page by page
# (docs/benchmarks.md). A process reads it when it begins.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def child_environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment for a child that runs this very code and belongs to us, changed by `settings`."""
    package = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", _PARENT: str(os.getpid())}
    return {**os.environ, **own, **(settings or {})}


def end_with_parent(parent: int | None = None) -> None:
    """In a child made with `child_environment`, or of `parent`: sends ourselves SIGTERM when it is gone. Elsewhere: nothing.

    A parent that is killed outright cannot tell its children; a training run that went on alone would hold its folder,
    and the same command, started again, would find it in use.
    """
    if parent is None:
        named = os.environ.get(_PARENT, "")
        if not named.isdigit():
            return
        parent = int(named)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="cptjax-parent", daemon=True).start()


def run_command(
    arguments: Sequence[str], settings: Mapping[str, str] | None = None, directory: str | None = None
) -> tuple[int, str | None]:
    """Runs `python -m cptjax.main` with `arguments` in `directory` (None: ours), its output ours, until it ends.

    With `HUGE_PAGES`, unless our environment or `settings` say something else of them.

    It is a process group of its own, and each signal that asks us to stop is passed on to it, once: a Ctrl-C on the
    terminal would otherwise reach it twice, which means "do not even save".

    Returns:
        Its exit code (negative: the signal that ended it), and the name of the first signal that was passed on.
    """
    with passing_on() as passed:
        child = subprocess.Popen(
            [sys.executable, "-m", "cptjax.main", *arguments],
            stdin=subprocess.DEVNULL,
            env={**HUGE_PAGES, **child_environment(settings)},
            cwd=directory,
            process_group=0,
        )
        passed.to(child)
        code = child.wait()
    return code, signal.Signals(passed.received[0]).name if passed.received else None


class PassedOn:
    """The signals that `passing_on` has received, and the child that is told of them."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._child: subprocess.Popen | None = None

    def to(self, child: subprocess.Popen) -> None:
        """From now on `child` is told; those that came before there was one, now."""
        self._child = child
        for number in tuple(self.received):
            child.send_signal(number)

    def receive(self, number: int, frame: object) -> None:
        """The handler."""
        self.received.append(number)
        if self._child is not None:
            self._child.send_signal(number)


@contextlib.contextmanager
def passing_on() -> Iterator[PassedOn]:
    """Within it each signal that asks us to stop is passed on to a child, and does nothing else.

    Under `nohup` we and the child go on ignoring SIGHUP.
    """
    passed = PassedOn()
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    heeded = [number for number in _PASSED_ON if not (nohup and number == signal.SIGHUP)]
    before = {number: signal.signal(number, passed.receive) for number in heeded}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
