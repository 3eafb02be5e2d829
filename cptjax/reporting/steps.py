"""The log of training steps, kept one step behind an accelerator so that it never waits for the host."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from cptjax.errors import CptjaxError
from cptjax.reporting.metrics import MetricsWriter
from cptjax.reporting.progress import Progress

# What is measured of the machine and not of the model.
_MEASURED = ("tokens_per_second", "mfu", "memory_bytes", "memory_peak_bytes")


def is_measured(name: str) -> bool:
    """Whether a metric is of the machine: no second run repeats it."""
    return name.partition("/")[0] in _MEASURED


class StepLog:
    """Takes the metrics of each step as they are on the device, and writes those of the step before.

    behind: False writes each step at once: right on a CPU, which computes where it is called and has nothing to wait for,
    and where a step written late would be timed wrongly.
    """

    def __init__(
        self,
        writer: MetricsWriter,
        progress: Progress,
        batch_tokens: int,
        patience: int,
        advice: Callable[[range], str],
        flops: float | None = None,
        devices: Sequence[jax.Device] = (),
        behind: bool = True,
    ):
        """See the class.

        Args:
            patience: refused steps one after another at which the run stops.
            advice: what to say of refused steps (a range, counted from 0): what they read, and what can be done.
            devices: whose memory is logged, where they tell.
            flops: what a step counts, over what the devices could do in a second: MFU is this over its seconds.
        """
        self._behind = behind
        self._writer, self._progress, self._batch_tokens = writer, progress, batch_tokens
        self._patience, self._advice, self._flops = patience, advice, flops
        self._devices = devices
        self.stop_asked = False  # by any process, as of the last step that was written
        self._pending: tuple[int, Mapping[str, Any]] | None = None
        self._moment = time.perf_counter()

    def push(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Notes the metrics of `step` (steps done, counted from 1) and writes the pending ones."""
        self.write_pending()
        self._pending = (step, metrics)
        if not self._behind:
            self.write_pending()

    def passed_over(self, step: int) -> None:
        """Notes that `step` was passed over on request."""
        self.write_pending()
        self._writer.log(step, {"skipped": 1.0, "passed_over": 1.0})
        self._progress.say(f"step {step:,} is passed over (SKIP_STEPS)")

    def write_pending(self) -> None:
        """Waits for the last step that was pushed and writes it.

        Raises:
            CptjaxError: `patience` steps in a row were refused. Parameters and moments are as they were before the
                first of them.
        """
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        numbers = _without_absent({name: value.item() for name, value in metrics.items() if value.ndim == 0})
        self.stop_asked = bool(numbers.pop("stop", 0))
        moment = time.perf_counter()
        numbers["tokens_per_second"] = self._batch_tokens / (moment - self._moment)
        if self._flops is not None:
            numbers["mfu"] = self._flops / (moment - self._moment)
        numbers |= _memory(self._devices)
        numbers["tokens_read"] = step * self._batch_tokens
        self._moment = moment
        hashes = {name: hash_text(value) for name, value in metrics.items() if value.ndim == 1}
        self._writer.log(step, numbers | hashes)
        self._progress.update(step, numbers)
        if numbers["skipped"]:
            finite = math.isfinite(numbers["loss"]) and math.isfinite(numbers["gradient_norm"])
            why = f"{numbers['deviations']:.1f} deviations above the steps before" if finite else "not finite"
            self._progress.say(
                f"step {step:,} is skipped: loss {numbers['loss']:.4g}, gradient norm {numbers['gradient_norm']:.4g}, {why}"
            )
        refused = int(numbers["refused_in_a_row"])
        if refused >= self._patience:
            raise CptjaxError(
                f"{refused} steps one after another, up to step {step:,}, were not finite or stood out, and were skipped.\n"
                "  Parameters and moments are as they were before them.\n"
                f"{self._advice(range(step - refused, step))}"
            )

    def pause(self) -> None:
        """Writes what is pending; the time until the next step does not count as training."""
        self.write_pending()
        self._progress.pause()

    def resume(self) -> None:
        """Training goes on now."""
        self._progress.resume()
        self._moment = time.perf_counter()


def hash_text(lanes: Sequence[int]) -> str:
    """A hash of several 32-bit parts as the log has it: 8 hexadecimal digits each."""
    return "".join(f"{int(lane):08x}" for lane in lanes)


def _memory(devices: Sequence[jax.Device]) -> dict[str, float]:
    """Bytes in use and their peak: of the device that has most, and of each where there are several."""
    told = {device.id: stats for device in devices if (stats := device.memory_stats())}
    if not told:
        return {}
    names = {"memory_bytes": "bytes_in_use", "memory_peak_bytes": "peak_bytes_in_use"}
    found = {name: max(stats[key] for stats in told.values()) for name, key in names.items()}
    if len(told) > 1:
        found |= {f"{name}/{i}": stats[key] for name, key in names.items() for i, stats in told.items()}
    return found


def _without_absent(numbers: dict[str, float]) -> dict[str, float]:
    """Without the loss of a source that the step read nothing of, and without its count of tokens."""
    counts = {name: value for name, value in numbers.items() if name.startswith("tokens/")}
    absent = {f"loss/{name.removeprefix('tokens/')}" for name, value in counts.items() if value == 0}
    return {name: value for name, value in numbers.items() if name not in absent and name not in counts}
