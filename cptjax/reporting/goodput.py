"""Where a run's wall time goes: into steps that count, and into everything else, over all of its starts."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.errors import CptjaxError
from cptjax.files import read_json
from cptjax.reporting.folder import RunFolder

GOODPUT = "goodput.json"
STEPS = "steps"  # the one kind of time that is worth its cost
_WRITE_SECONDS = 10.0
KINDS = ("starting", "compiling", STEPS, "waiting for rows", "evaluating", "saving")


class Goodput:
    """Adds up seconds by kind; what is measured inside another kind counts for the inner one alone.

    Time runs for `starting` from the moment this is made. `goodput.json` has one entry a start, and outlives kills but
    for the time since it was last written. A damaged one is set aside, as `warning` says: it is a record, no more.
    """

    def __init__(self, folder: RunFolder, clock=time.monotonic, now=time.time):
        """See the class; `clock` and `now` tell seconds of this start and of all starts."""
        self._folder, self._clock = folder, clock
        path = folder.path / GOODPUT
        self._earlier, self.warning = _earlier(path)
        self._written = clock()
        self._entry: dict[str, Any] = {"began": now(), "ended": now(), "first_step": 0, "last_step": 0}
        self._entry["seconds"] = dict.fromkeys(KINDS, 0.0)
        self._now = now
        self._kind, self._since = "starting", clock()

    def go_on_from(self, step: int) -> None:
        """This start goes on from `step`: what an earlier start did after it was lost."""
        self._entry |= {"first_step": step, "last_step": step}

    def started(self, start_up: Mapping[str, Any]) -> None:
        """The first step is done; `start_up` says what came before it (reporting/start_up.py)."""
        self._entry["start_up"] = dict(start_up)

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Time within it is of this kind."""
        before = self.turn(kind)
        try:
            yield
        finally:
            self.turn(before)

    def turn(self, kind: str) -> str:
        """From here on time is of this kind; returns the kind that it was."""
        moment = self._clock()
        self._entry["seconds"][self._kind] += moment - self._since
        before, self._kind, self._since = self._kind, kind, moment
        return before

    def at(self, step: int) -> None:
        """Notes, now and then, how far the run is: what a kill takes from the record is a few seconds."""
        if self._clock() - self._written >= _WRITE_SECONDS:
            self.write(step)

    def write(self, step: int) -> None:
        """Notes how far the run is."""
        self.turn(self._kind)
        self._written = self._clock()
        self._entry |= {"last_step": step, "ended": self._now()}
        self._folder.write(GOODPUT, json.dumps([*self._earlier, self._entry], indent=1) + "\n")

    def summary(self) -> dict[str, float]:
        """See `summarised`, of all starts, this one included."""
        return summarised([*self._earlier, self._entry])


def _earlier(path: epath.Path) -> tuple[list[dict[str, Any]], str | None]:
    """The entries of earlier starts, and what is to be said of a file that cannot be read."""
    if not path.exists():
        return [], None
    try:
        entries = read_json(path)
        summarised(entries)
        return entries, None
    except (CptjaxError, LookupError, TypeError, AttributeError):
        aside = path.parent / f"{path.name}.damaged"
        path.rename(aside)
        return [], f"warning: {path} was damaged and is now {aside.name}; goodput counts from this start on"


def summarised(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by kind over all starts; `lost` (steps done twice), `down` (between starts); `goodput`, the share of steps."""
    seconds = {kind: sum(entry["seconds"].get(kind, 0.0) for entry in entries) for kind in KINDS}
    lost, down = 0.0, 0.0
    for before, after in zip(entries, entries[1:], strict=False):
        done = before["last_step"] - before["first_step"]
        again = max(0, before["last_step"] - after["first_step"])
        lost += before["seconds"].get(STEPS, 0.0) * again / done if done else 0.0
        down += max(0.0, after["began"] - before["ended"])
    seconds[STEPS] -= lost
    seconds |= {"lost": lost, "down": down}
    return {**seconds, "goodput": seconds[STEPS] / max(1e-9, sum(seconds.values()))}


def describe_goodput(summary: dict[str, float]) -> str:
    """One line: "goodput 93.1%: of 240 s, steps 223, compiling 6, ..."."""
    seconds = {kind: value for kind, value in summary.items() if kind != "goodput" and value >= 0.5}
    parts = ", ".join(f"{kind} {value:.0f}" for kind, value in sorted(seconds.items(), key=lambda item: -item[1]))
    return f"goodput {summary['goodput']:.1%}: of {sum(seconds.values()):.0f} s, {parts}"
