"""Where a run is: a live line on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from cptjax.counts import count

_LOG_SECONDS = 30.0  # between plain lines, after the first few
_FIRST_LINES = 3  # printed at once, so that whoever watches a log sees that it works
_MEMORY = 0.9  # of the speed's running mean, so that a slow step (a save, an evaluation) does not throw the ETA


class Progress:
    """Shows step, loss, learning rate, tokens per second and the time left.

    On a terminal one line is rewritten (rich); in a log a line appears at the first steps, then twice a minute, and at
    the last step. `say` prints a line above it. A Progress with `show=False` (every process but the first) is silent.
    """

    def __init__(self, total_steps: int, tokens_per_step: int, *, show: bool = True, stream: TextIO | None = None):
        """Prepares to show a run of `total_steps` steps, each of `tokens_per_step` tokens, on `stream` (stdout)."""
        self.total_steps, self.tokens_per_step, self.show = total_steps, tokens_per_step, show
        self._stream = sys.stdout if stream is None else stream
        self._live = None
        self._lines = 0
        self._last_line = -_LOG_SECONDS
        self._step: int | None = None  # of the last update
        self._last: tuple[int, float] | None = None  # step and time that the next update is measured from
        self._seconds_per_step: float | None = None

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows that `step` (counted from 1) is done, with the numbers in `metrics` ("loss", "learning_rate", ...)."""
        if not self.show:
            return
        self._time(step)
        if self._stream.isatty():
            self._terminal(self.line(step, metrics))
        elif self._due(step):
            print(self.line(step, metrics), file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """Prints a line for good, above the live one."""
        if not self.show:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the last line standing and gives the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def line(self, step: int, metrics: Mapping[str, float]) -> str:
        """The line for `step`."""
        width = len(str(self.total_steps))
        parts = [f"step {step:>{width}}/{self.total_steps}"]
        if "loss" in metrics:
            parts.append(f"loss {float(metrics['loss']):.4f}")
        if "learning_rate" in metrics:
            parts.append(f"lr {float(metrics['learning_rate']):.2e}")
        if self._seconds_per_step:
            parts.append(f"{count(self.tokens_per_step / self._seconds_per_step)} tokens/s")
            parts.append(f"ETA {duration((self.total_steps - step) * self._seconds_per_step)}")
        return "  ".join(parts)

    def pause(self) -> None:
        """Leaves what comes now out of the speed, until `resume` or the next update: a save is not training."""
        self._last = None

    def resume(self) -> None:
        """Training goes on now, after the step of the last update."""
        if self._step is not None:
            self._last = (self._step, time.monotonic())

    def _time(self, step: int) -> None:
        moment = time.monotonic()
        if self._last is not None and step > self._last[0]:
            seconds = (moment - self._last[1]) / (step - self._last[0])
            before = self._seconds_per_step
            self._seconds_per_step = seconds if before is None else _MEMORY * before + (1 - _MEMORY) * seconds
        self._step, self._last = step, (step, moment)

    def _due(self, step: int) -> bool:
        moment = time.monotonic()
        if self._lines >= _FIRST_LINES and step < self.total_steps and moment - self._last_line < _LOG_SECONDS:
            return False
        self._lines, self._last_line = self._lines + 1, moment
        return True

    def _terminal(self, text: str) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=Console(file=self._stream), refresh_per_second=4)
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))


def duration(seconds: float) -> str:
    """A time span as people say it: 42s, 3m20s, 5h07m, 2d04h."""
    seconds = max(0, round(seconds))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 60:
        return f"{seconds}s"
    if hours == 0:
        return f"{minutes}m{seconds % 60:02d}s"
    if days == 0:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{days}d{hours % 24:02d}h"
