"""The two sides of the roll call: the first process's supervisor keeps it, the others answer it."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from cptjax.errors import LOST, ConfigurationError
from cptjax.hosts.finding import Found
from cptjax.hosts.lines import Events, Line, Listener, call, roll_call_port
from cptjax.hosts.roll_call import START_SECONDS, RollCall, Timing, Verdict

_MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
)  # what comes of words that are not one of ours; they are dropped


class Station(Protocol):
    """What a supervisor asks of its side. Times are of one clock, in seconds."""

    over: bool  # whether nothing more will be said: all have ended

    def take(self, line: Line, content: dict[str, Any] | None, now: float) -> None:
        """Something came in; None: the connection is gone."""

    def beat(self) -> None:
        """Says that we are here: to be called once a `Timing.beat`, and never in answer to another's beat."""

    def verdict(self, now: float) -> Verdict | None:
        """What ends the run, if anything does."""

    def ended(self, code: int) -> None:
        """Our own training ended so, or is about to."""

    def close(self) -> None:
        """Hangs up."""


class Keeper:
    """The side of the first process. Whatever ends the run is told to all others."""

    def __init__(
        self, found: Found, run: str, host: str, timing: Timing, events: Events, now: float, say: Callable[[str], None]
    ):
        """Listens for the others; `say` prints that all have come. `run`: what the commands of them all have in common.

        Raises:
            OSError: the port is in use.
        """
        self._listener = Listener(roll_call_port(found.port), events)
        self._run = run
        self._roll = RollCall(found.count, timing, now, found.hosts)
        self._roll.come(0, host, now)
        self._lines: dict[Line, int] = {}
        self._now, self._say, self._complete, self._verdict = now, say, False, None

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return self._roll.over

    def take(self, line: Line, content: dict[str, Any] | None, now: float) -> None:
        """See `Station`."""
        index = self._lines.get(line)
        with contextlib.suppress(*_MALFORMED):
            if index is None:
                if content and "hello" in content:
                    self._welcome(line, content["hello"], now)
            elif content is None:
                self._roll.end(index, None, now)
            else:
                self._roll.hear(index, now)
                if "ended" in content:
                    self._roll.end(index, int(content["ended"]), now)

    def beat(self) -> None:
        """See `Station`."""
        self._tell(beat=True)

    def verdict(self, now: float) -> Verdict | None:
        """See `Station`; and tells the others."""
        self._now = now
        self._roll.hear(0, now)
        if self._verdict is None:
            self._verdict = self._roll.verdict(now)
            if self._verdict is not None:
                self._tell(verdict=dataclasses.asdict(self._verdict))
        if self._roll.complete and not self._complete:
            self._complete = True
            hosts = ", ".join(f"{index} on {host}" for index, host in sorted(self._roll.hosts.items()))
            self._say(f"all {self._roll.count} processes have come: {hosts}")
        return self._verdict

    def ended(self, code: int) -> None:
        """See `Station`."""
        self._roll.end(0, code, self._now)

    def close(self) -> None:
        """See `Station`."""
        self._tell(over=True)
        self._listener.close()
        for line in self._lines:
            line.close()

    def _welcome(self, line: Line, hello: dict[str, Any], now: float) -> None:
        index, host, count = int(hello["index"]), str(hello["host"]), int(hello["count"])
        if hello["run"] != self._run:
            who = f"process {index} of {count} on host {host}"
            self._say(f"{who} belongs to another run ({hello['run']}), and was turned away")
            another = f"the first process, on host {self._roll.hosts[0]}, belongs to another run ({self._run}), with the same port."
            line.send(verdict=dataclasses.asdict(Verdict(another, ConfigurationError.exit_code)))
            return
        if count != self._roll.count:
            ours = f"the first as one of {self._roll.count}"
            refused = f"process {index} (host {host}) was started as one of {count} processes, {ours}."
        elif not 0 < index < count or self._roll.has_come(index):
            there = f"on host {self._roll.hosts[index]}" if index in self._roll.hosts else "nowhere"
            refused = f"there are two processes {index} of {count}: {there}, and on host {host}."
        else:
            self._roll.come(index, host, now)
            self._lines[line] = index
            if self._verdict is not None:
                line.send(verdict=dataclasses.asdict(self._verdict))
            return
        self._verdict = self._verdict or Verdict(refused, ConfigurationError.exit_code)
        line.send(verdict=dataclasses.asdict(self._verdict))
        self._tell(verdict=dataclasses.asdict(self._verdict))

    def _tell(self, **content: Any) -> None:
        for line in self._lines:
            line.send(**content)


class Answerer:
    """The side of every other process."""

    def __init__(self, found: Found, run: str, host: str, timing: Timing, events: Events, now: float):
        """Begins to call the first process's supervisor."""
        self._found, self._timing, self._began = found, timing, now
        self._line: Line | None = None
        self._heard, self._ended, self._verdict, self.over = now, None, None, False
        hello = {"index": found.index, "host": host, "count": found.count, "run": run}
        call(found.host, roll_call_port(found.port), timing.start, events, hello=hello)

    def take(self, line: Line, content: dict[str, Any] | None, now: float) -> None:
        """See `Station`."""
        self._heard = now
        if content is None:
            if not self.over and self._verdict is None:
                self._verdict = self._lost("its supervisor ended without a word")
        elif "connected" in content:
            self._line = line
            if self._ended is not None:
                line.send(ended=self._ended)
        elif "verdict" in content:
            with contextlib.suppress(*_MALFORMED):
                self._verdict = self._verdict or Verdict(**content["verdict"])
        elif "over" in content:
            self.over = True

    def beat(self) -> None:
        """See `Station`."""
        if self._line is not None:
            self._line.send(beat=True)

    def verdict(self, now: float) -> Verdict | None:
        """See `Station`."""
        if self._line is None:
            if now - self._began > self._timing.start:
                self._verdict = self._verdict or self._missing()
        elif now - self._heard > self._timing.silence and not self.over:
            cut_off = "its host is down, or cut off from the network, or this one is"
            silent = f"nothing was heard of it for {self._timing.silence:g} s: {cut_off}"
            self._verdict = self._verdict or self._lost(silent)
        return self._verdict

    def ended(self, code: int) -> None:
        """See `Station`."""
        if self._ended is None:
            self._ended = code
            if self._line is not None:
                self._line.send(ended=code)

    def close(self) -> None:
        """See `Station`."""
        if self._line is not None:
            self._line.close()

    def _lost(self, how: str) -> Verdict:
        return Verdict(f"process 0 of {self._found.count} (host {self._found.host}) is lost: {how}.", LOST, 0)

    def _missing(self) -> Verdict:
        port = roll_call_port(self._found.port)
        return Verdict(
            f"process 0 of {self._found.count} (host {self._found.host}) was not reached within {self._timing.start:g} s: "
            f"its supervisor is to answer at port {port}.\n"
            f"  Was the same command started there? Does the network let this host reach it? {START_SECONDS} waits longer.",
            LOST,
            0,
        )
