"""The log of training steps, kept one step behind an accelerator so that it never waits for the host."""

import time
from collections.abc import Mapping
from typing import Any

from cptjax.errors import CptjaxError
from cptjax.reporting.metrics import MetricsWriter
from cptjax.reporting.progress import Progress

MOST_SKIPPED = 10  # steps without a finite loss, one after another, at which a run stops


class StepLog:
    """Takes the metrics of each step as they are on the device, and writes those of the step before.

    behind: False writes each step at once: right on a CPU, which computes where it is called and has nothing to wait for,
    and where a step written late would be timed wrongly.
    """

    def __init__(self, writer: MetricsWriter, progress: Progress, batch_tokens: int, behind: bool = True):
        self._behind = behind
        self._writer, self._progress, self._batch_tokens = writer, progress, batch_tokens
        self._pending: tuple[int, Mapping[str, Any]] | None = None
        self._skipped = 0
        self._moment = time.perf_counter()

    def push(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Notes the metrics of `step` (steps done, counted from 1) and writes the pending ones."""
        self.write_pending()
        self._pending = (step, metrics)
        if not self._behind:
            self.write_pending()

    def write_pending(self) -> None:
        """Waits for the last step that was pushed and writes it.

        Raises:
            CptjaxError: `MOST_SKIPPED` steps in a row had no finite loss or gradient. Parameters and moments are as
                they were before the first of them.
        """
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        numbers = {name: value.item() for name, value in metrics.items()}
        moment = time.perf_counter()
        numbers["tokens_per_second"] = self._batch_tokens / (moment - self._moment)
        numbers["tokens_read"] = step * self._batch_tokens
        self._moment = moment
        self._writer.log(step, numbers)
        self._progress.update(step, numbers)
        self._skipped = self._skipped + 1 if numbers["skipped"] else 0
        if numbers["skipped"]:
            self._progress.say(
                f"step {step:,} is skipped: loss {numbers['loss']}, gradient norm {numbers['gradient_norm']}"
            )
        if self._skipped >= MOST_SKIPPED:
            raise CptjaxError(
                f"the last {MOST_SKIPPED} steps, up to step {step:,}, had no finite loss or gradient, and were skipped.\n"
                "  Parameters and moments are as they were before them. Lower PEAK_LEARNING_RATE, or look at the text."
            )

    def pause(self) -> None:
        """Writes what is pending; the time until the next step does not count as training."""
        self.write_pending()
        self._progress.pause()

    def resume(self) -> None:
        """Training goes on now."""
        self._progress.resume()
        self._moment = time.perf_counter()
