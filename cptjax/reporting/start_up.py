"""From the launch of a command to its first step: seconds by phase."""

import time
from collections.abc import Callable, Mapping
from typing import Any

IMPORTS, JOINING, DATA, WEIGHTS, EVALUATING, COMPILING, FIRST_STEP = PHASES = (
    "imports",
    "joining",
    "data",
    "weights",
    "evaluating",
    "compiling",
    "first step",
)
_CACHE = {"hit": " (from the cache)", "miss": " (not in the cache)", "off": " (no cache)"}


class StartUp:
    """Adds up seconds by phase: what has passed since the phase before was done is the next one's.

    imports: from the launch to the job; joining: finding the other processes; data: what the run starts from, opened, and its
    text as rows; weights: read, or drawn, and on the devices; evaluating: before the first step, samples included; compiling:
    the step; first step: its execution.
    """

    def __init__(self, launched: float, clock: Callable[[], float] = time.time):
        """See the class; `launched` is a moment of `clock`, in seconds."""
        self._since, self._clock = launched, clock
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._cache = "off"

    def done(self, phase: str, moment: float | None = None) -> None:
        """The time until `moment` (None: now) was this phase's."""
        moment = max(self._since, self._clock() if moment is None else moment)
        self._seconds[phase] += moment - self._since
        self._since = moment

    def compiled(self, cache: str, moment: float | None) -> None:
        """The step was compiled at `moment` (None: it was not), with a persistent cache that was a "hit", a "miss" or "off"."""
        self._cache = cache
        if moment is not None:
            self.done(COMPILING, moment)

    def record(self) -> dict[str, Any]:
        """As the run's folder has it: `seconds` by phase, and what the compilation cache was."""
        return {"seconds": {phase: round(value, 3) for phase, value in self._seconds.items()}, "cache": self._cache}


def describe_start_up(record: Mapping[str, Any]) -> str:
    """ "12.3 s: imports 3.1, joining 0.2, ..., compiling 4.0 (from the cache), first step 0.1"."""
    seconds = record["seconds"]
    notes = {COMPILING: _CACHE[record["cache"]]}
    parts = [f"{phase} {seconds[phase]:.1f}{notes.get(phase, '')}" for phase in PHASES]
    return f"{sum(seconds.values()):.1f} s: {', '.join(parts)}"
