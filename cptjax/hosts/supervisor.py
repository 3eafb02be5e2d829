"""The parent on every host of a run: it starts the training, and ends it with a message when another part of the run is lost.

When a process of a JAX run dies, the others wait for it, or native code aborts them, often without naming anyone. A supervisor
knows how its own training ended, tells the others (hosts/roll_call.py), and imports nothing that could abort.
"""

import contextlib
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from cptjax.errors import LOST, STOPPED, ConfigurationError
from cptjax.hosts.finding import Found
from cptjax.hosts.lines import Line, roll_call_port
from cptjax.hosts.roll_call import Timing, Verdict, timing_of
from cptjax.hosts.stations import Answerer, Keeper, Station
from cptjax.hosts.worker import ALONE, ENDING, JOINING, SUPERVISOR
from cptjax.processes import PassedOn, child_environment, passing_on

_LEAVING_SECONDS = 2.0  # for a training that has said how it ends: what it waits for then may never come
_READ_SECONDS = 0.5  # for what a training said just before it ended
_LINGER_SECONDS = 60.0  # for which the first supervisor waits for the others' ends, once its own training is done


def supervise(
    arguments: Sequence[str],
    found: Found,
    run: str,
    command: Sequence[str] | None = None,
    timing: Timing | None = None,
) -> int:
    """Runs `python -m cptjax.main` with `arguments` as one process of a run on several, and returns the exit code.

    A job that does not join the other processes is only run; where it fails before it joins them, they are told. Signals that ask
    us to stop are passed on to it; one that ends it outright, before or after its training, has stopped it too.

    Args:
        run: what the commands of its processes have in common; one that says another thing belongs to another run.
        command: what is run instead of that, for tests; timing: instead of the usual one.

    Raises:
        ConfigurationError: CPTJAX_START_SECONDS is wrong.
    """
    supervisor = _Supervisor(found, run, timing or timing_of())
    return supervisor.run(command or [sys.executable, "-m", "cptjax.main", *arguments])


class _Supervisor:
    def __init__(self, found: Found, run: str, timing: Timing):
        self._found, self._run, self._timing = found, run, timing
        self._events: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._station: Station | None = None
        self._verdict: Verdict | None = None
        self._said: int | None = None  # the code that the training said it would leave with
        self._code: int | None = None  # the code that it left with
        self._ended_at: float | None = None
        self._alone = False  # whether the training does what no other one does
        self._late = False  # whether the training ended before it joined the others, who may wait for it
        self._asked = False  # whether the training was sent SIGTERM
        self._passed = PassedOn()

    def run(self, command: Sequence[str]) -> int:
        """Starts the training and stays until it is over and the others know how it ended, or we know how theirs did."""
        with _training(command, self._events) as (training, self._passed):
            next_beat = decided_at = 0.0
            while not self._may_leave():
                with contextlib.suppress(queue.Empty):
                    self._take(*self._events.get(timeout=max(0.01, next_beat - time.monotonic())))
                now = time.monotonic()
                if now >= next_beat:
                    next_beat = now + self._timing.beat
                    if self._station is not None:
                        self._station.beat()
                if self._station is not None:
                    self._verdict = self._station.verdict(now) or self._verdict
                if self._verdict is not None and self._code is None:
                    decided_at = decided_at or now
                    self._end(training, now - decided_at)
        if self._station is not None:
            self._station.close()
        return self._leave()

    def _take(self, source: Any, content: Any) -> None:
        now = time.monotonic()
        if isinstance(source, Line):
            if self._station is not None:
                self._station.take(source, content, now)
        elif source == JOINING:
            self._join(now)
        elif source == ALONE:
            self._alone = True
        elif source == ENDING:
            self._said = content
            self._tell_end(content, now)
        else:
            self._code = content
            self._tell_end(self._own, now)

    def _join(self, now: float) -> None:
        host = platform.node()
        if self._found.index:
            self._station = Answerer(self._found, self._run, host, self._timing, self._events, now)
            return
        try:
            self._station = Keeper(self._found, self._run, host, self._timing, self._events, now, self._say)
        except OSError as error:
            if self._late:  # it has failed already
                return
            port = roll_call_port(self._found.port)
            self._verdict = Verdict(
                f"the first process's supervisor cannot listen at port {port}: {error.strerror}.\n"
                f"  Is another run on this host? The port follows from JAX's: choose another one of these.",
                ConfigurationError.exit_code,
            )

    def _say(self, text: str) -> None:
        if not self._late:
            print(text, flush=True)

    def _tell_end(self, code: int, now: float) -> None:
        if self._ended_at is None:
            self._ended_at = now
            if self._station is None and code != 0 and not self._alone:
                self._late = True
                self._join(now)
            if self._station is not None:
                self._station.ended(code)

    def _end(self, training: subprocess.Popen, seconds: float) -> None:
        """Ends the training, `seconds` after the verdict."""
        grace = self._timing.grace if self._said is None else _LEAVING_SECONDS
        if seconds >= grace + self._timing.term:
            _signal(training, signal.SIGKILL)
        elif seconds >= grace and not self._asked:
            self._asked = True
            _signal(training, signal.SIGTERM)

    def _may_leave(self) -> bool:
        if self._code is None:
            return False
        if self._station is None or self._station.over:
            return True
        waited = time.monotonic() - self._ended_at
        if self._verdict is not None and not (
            self._late and self._found.index == 0
        ):  # whom those who still come will ask
            return True
        if self._own == 0:
            return bool(self._found.index) or waited > _LINGER_SECONDS
        return waited > self._timing.settle + self._timing.grace  # nobody answers any more

    @property
    def _own(self) -> int:
        """The exit code of our training, as it was meant; negative where a signal ended it that did not ask it to stop."""
        if self._said is not None:
            return self._said
        return STOPPED if self._was_stopped else self._code

    @property
    def _was_stopped(self) -> bool:
        """Whether the first request to stop ended our training outright: while it trains it heeds that one, and saves."""
        by_request = self._said is None and self._code in (-signal.SIGTERM, -signal.SIGINT)
        return by_request and self._passed.received == [-self._code] and not self._alone

    def _leave(self) -> int:
        own = self._own if self._own >= 0 else 128 - self._own
        if self._was_stopped:
            by = signal.Signals(-self._code).name
            print(
                f"stopped by {by} outside of training, where nothing has to be saved. Run the same command again.",
                file=sys.stderr,
            )
        if self._verdict is None or own == 0:
            return own
        text, code = self._verdict.text, self._verdict.code
        if self._verdict.index == self._found.index and own == code:  # it has said why itself
            return code
        if code == LOST:
            text += (
                "\n  All processes of the run end with it. What it had saved is whole: the same command on every host goes on"
                f" from there,\n  on another number of them too. (exit code {LOST})"
            )
        print(text if code == STOPPED else f"error: {text}", file=sys.stderr, flush=True)
        return code


def _signal(training: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(training.pid, number)


@contextlib.contextmanager
def _training(command: Sequence[str], events: queue.Queue):
    """The training, a process group of its own. What it says, and in the end (None, its exit code), goes to `events`."""
    reading, writing = os.pipe()

    def read() -> None:
        with os.fdopen(reading, encoding="ascii") as stream:
            for line in stream:
                word, _, number = line.strip().partition(" ")
                events.put((word, int(number or 0)))

    def wait() -> None:
        code = training.wait()
        reader.join(
            _READ_SECONDS
        )  # what it said comes before how it ended; a process that it left behind holds the pipe open
        events.put((None, code))

    with passing_on() as passed:
        training = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=child_environment({SUPERVISOR: str(writing)}),
            pass_fds=(writing,),
            process_group=0,
        )
        os.close(writing)
        passed.to(training)
        reader = threading.Thread(target=read, name="cptjax-training", daemon=True)
        reader.start()
        threading.Thread(target=wait, name="cptjax-training", daemon=True).start()
        try:
            yield training, passed
        finally:
            if training.poll() is None:
                _signal(training, signal.SIGKILL)
                training.wait()
