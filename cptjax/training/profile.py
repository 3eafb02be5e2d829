"""Profiler traces of chosen steps, on request: what XProf and TensorBoard's profile plugin read."""

from collections.abc import Sequence

import jax
from etils import epath


class Profile:
    """Traces the steps (first, last), counted from 1 as the log does, into a folder; None traces nothing."""

    def __init__(self, steps: Sequence[int] | None, folder: epath.Path):
        self._steps, self._folder, self._running = steps, folder, False

    def before(self, step: int) -> None:
        """Called before `step` (counted from 0)."""
        if self._steps is not None and not self._running and self._steps[0] <= step + 1 <= self._steps[1]:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, result: object) -> str | None:
        """Called after it; waits for `result` where the trace ends, and says where it is then."""
        if not self._running or step + 1 < self._steps[1]:
            return None
        jax.block_until_ready(result)
        self.close()
        return f"traced steps {self._steps[0]:,} to {self._steps[1]:,}: {self._folder} (TensorBoard's profile plugin, xprof)"

    def close(self) -> None:
        """Ends a trace that is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
