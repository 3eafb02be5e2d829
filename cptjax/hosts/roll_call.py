"""Who of a run has come, is heard of, and has ended how; and what follows from it. No sockets, and the time is given."""

import dataclasses
import math
import os
import signal
from collections.abc import Mapping, Sequence

from cptjax.errors import LOST, STOPPED, ConfigurationError, CptjaxError

START_SECONDS = "CPTJAX_START_SECONDS"
_SAID = (
    CptjaxError.exit_code,
    ConfigurationError.exit_code,
    STOPPED,
)  # codes with which a process ends by its own decision
_ABORTED = (-signal.SIGABRT, 128 + signal.SIGABRT)  # how JAX ends a process when another one is lost


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds. From the loss of a process to the end of all: at most `silence + settle + grace + term`, and a little.

    Attributes:
        start: how long all may take to come.
        beat: how often a supervisor is heard of.
        silence: after so long without a word a host is lost.
        settle: how long the cause is looked for after a death that may itself be a consequence.
        grace: how long a training may end by itself, with its own words, when another is lost.
        term: how long it has after a SIGTERM, before it is killed.
    """

    start: float = 300.0
    beat: float = 1.0
    silence: float = 20.0
    settle: float = 5.0
    grace: float = 10.0
    term: float = 5.0


def timing_of(environment: Mapping[str, str] | None = None) -> Timing:
    """The usual timing, with what CPTJAX_START_SECONDS says.

    Raises:
        ConfigurationError: it is no number of seconds.
    """
    text = (os.environ if environment is None else environment).get(START_SECONDS)
    if not text:
        return Timing()
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"{START_SECONDS} = {text!r}: it is how many seconds all processes may take to come.")
    return Timing(start=seconds)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What ends the run: a message for people, naming processes and hosts, and the exit code of all its processes.

    index: the first process that it names; None where it names none.
    """

    text: str
    code: int
    index: int | None = None


class RollCall:
    """The state of a run's processes as the first one's supervisor knows it. Times are of one clock, in seconds."""

    def __init__(self, count: int, timing: Timing, now: float, hosts: Sequence[str] = ()):
        """A run of `count` processes of which none has come; `hosts`: their names, as far as they are known before."""
        self.count, self._timing, self._began = count, timing, now
        self.hosts = dict(enumerate(hosts))
        self._heard: dict[int, float] = {}
        self._ends: dict[int, tuple[float, int | None]] = {}  # when, and the exit code; None: its supervisor went away

    def come(self, index: int, host: str, now: float) -> None:
        """Process `index` is on `host`."""
        self.hosts[index] = host
        self._heard[index] = now

    def hear(self, index: int, now: float) -> None:
        """Process `index` is still there."""
        self._heard[index] = now

    def end(self, index: int, code: int | None, now: float) -> None:
        """The training of process `index` ended with `code` (negative: a signal); None: its supervisor went without a word."""
        self._ends.setdefault(index, (now, code))

    def has_come(self, index: int) -> bool:
        """Whether process `index` has said so."""
        return index in self._heard

    @property
    def complete(self) -> bool:
        """Whether all have come."""
        return len(self._heard) == self.count

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return len(self._ends) == self.count

    def verdict(self, now: float) -> Verdict | None:
        """What ends the run now, if anything does. Where all end by themselves with one code, nothing has to be said."""
        silent = self._silent(now, self._timing.silence)
        if silent:
            return self._lost(
                dict.fromkeys(silent, f"nothing was heard of it for {self._timing.silence:g} s: {_CUT_OFF}")
            )
        failed = {index: end for index, end in self._ends.items() if end[1] != 0}
        if failed:
            return self._of_failures(failed, now)
        if not self.complete and now - self._began > self._timing.start:
            return self._missing()
        return None

    def _of_failures(self, failed: Mapping[int, tuple[float, int | None]], now: float) -> Verdict | None:
        causes = {index: code for index, (_, code) in failed.items() if _is_cause(code)}
        if causes:
            return self._lost({index: _how(code) for index, code in causes.items()})
        codes = {code for _, code in self._ends.values()}
        if self.over and len(codes) == 1 and codes <= set(_SAID):
            return None
        first = min(failed, key=lambda index: failed[index][0])
        when, code = failed[first]
        if not self.over and now - when < self._timing.settle:
            return None
        # What ended may have ended because another one is gone, of which nobody has told yet.
        silent = [] if self.over else self._silent(now, self._timing.settle - self._timing.beat)
        if silent:
            return self._lost(dict.fromkeys(silent, f"nothing is heard of it any more: {_CUT_OFF}"))
        if code not in _SAID:
            return self._lost({first: _how(code)})
        ended = f"{self._named([first])} was stopped" if code == STOPPED else f"{self._named([first])} failed"
        return Verdict(f"{ended} (exit code {code}), and says why in its own log. The others end with it.", code, first)

    def _silent(self, now: float, seconds: float) -> list[int]:
        return [i for i, heard in sorted(self._heard.items()) if i not in self._ends and now - heard > seconds]

    def _lost(self, how: Mapping[int, str]) -> Verdict:
        lines = [f"{self._named([index])} is lost: {what}." for index, what in how.items()]
        return Verdict("\n  ".join(lines), LOST, min(how))

    def _missing(self) -> Verdict:
        missing = [index for index in range(self.count) if index not in self._heard]
        came = ", ".join(f"{index} ({self.hosts[index]})" for index in sorted(self._heard)) or "none"
        return Verdict(
            f"{self._named(missing)} did not come within {self._timing.start:g} s.\n  Those that came: {came}.\n"
            f"  Was the same command started there, with the same number of processes? {START_SECONDS} waits longer.",
            LOST,
            missing[0],
        )

    def _named(self, indices: Sequence[int]) -> str:
        """ "process 1 of 4 (host b)", "processes 1 (host b) and 3 of 4"."""
        hosts = {index: f" (host {self.hosts[index]})" if index in self.hosts else "" for index in indices}
        if len(hosts) == 1:
            return f"process {indices[0]} of {self.count}{hosts[indices[0]]}"
        names = [f"{index}{host}" for index, host in hosts.items()]
        return f"processes {', '.join(names[:-1])} and {names[-1]} of {self.count}"


_CUT_OFF = "its host is down, or cut off from the network"


def _is_cause(code: int | None) -> bool:
    """Whether an end explains itself: a supervisor gone, or a signal that JAX does not send when another is lost."""
    return code is None or (code not in _ABORTED and (code < 0 or code > 128))


def _how(code: int | None) -> str:
    if code is None:
        return "its supervisor ended without a word"
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name if code < 0 or code > 128 else ""
    except ValueError:
        name = f"signal {number}"
    if not name:
        return f"its training ended with exit code {code}; its own log says more"
    more = {
        "SIGKILL": " (by hand, or because its machine was out of memory: `dmesg` there tells)",
        "SIGABRT": ": native code gave up; its own log says more",
        "SIGSEGV": ": a fault in native code",
    }
    return f"its training was ended by {name}{more.get(name, '')}"
