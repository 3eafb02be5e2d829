"""What a run logs: one JSON object a line in `metrics.jsonl`, and the same numbers as TensorBoard events.

A run that is killed and started again logs each step once: what lies beyond the step it resumes from is dropped first.
"""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from cptjax.errors import CptjaxError
from cptjax.files import is_local, write_file
from cptjax.reporting.folder import METRICS

TENSORBOARD = "tensorboard"
_COPY_SECONDS = 30.0  # how often a bucket gets what was logged; a bucket's objects cannot be appended to


class MetricsWriter:
    """Writes the metrics of one run.

    On a local disk each line is flushed as it is written. In a bucket (gs://) lines are written to a temporary folder
    here and copied over every half minute, at `flush` and at `close`; a kill loses the last half minute of lines that
    no resumed run repeats, so call `flush` whenever a checkpoint is saved.
    """

    def __init__(self, folder: epath.PathLike, resume_at_step: int = 0, *, write: bool = True):
        """Opens the files for a run that begins (0), or goes on from the checkpoint of `resume_at_step`.

        Args:
            folder: the run's folder.
            resume_at_step: the last step already done: lines of later steps are dropped, for 0 all lines are. What is
                logged of a step is therefore logged before its checkpoint is saved.
            write: False makes a writer that writes nothing, for every process but the first.
        """
        self._write = write
        if not write:
            return
        folder = epath.Path(folder)
        self._remote = None if is_local(folder) else folder
        self._local = Path(folder) if self._remote is None else Path(tempfile.mkdtemp(prefix="cptjax_metrics_"))
        self._local.mkdir(parents=True, exist_ok=True)
        path = self._local / METRICS
        if self._remote is not None and (self._remote / METRICS).exists():
            path.write_bytes((self._remote / METRICS).read_bytes())
        self._logged = set()  # what was logged of the step we resume at: metrics' names
        if path.exists():
            keep_until(path, resume_at_step)
            self._logged = {frozenset(line) for line in read_metrics(path) if line["step"] == resume_at_step}
        self._resume_at_step = resume_at_step
        self._lines = path.open("a", encoding="utf-8")
        self._events = None
        self._copied = time.monotonic()

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes one line `{"step": step, ...}` and a TensorBoard scalar for each number in it.

        Floats are written so that reading them back gives the same bits; numbers that JSON lacks become the strings
        "nan", "inf" and "-inf". Numpy and JAX scalars are taken as Python's; a float32 keeps its value exactly.
        What the run logged of the step it resumed at is not logged a second time.
        """
        if not self._write:
            return
        plain = {name: _plain(value) for name, value in metrics.items()}
        line = {"step": int(step), **{name: _json_value(value) for name, value in plain.items()}}
        if step == self._resume_at_step and frozenset(line) in self._logged:
            return
        self._lines.write(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n")
        self._lines.flush()
        for name, value in plain.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._tensorboard().add(name, value, int(step))
        if self._remote is not None and time.monotonic() - self._copied > _COPY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hands everything logged so far to the disk, or to the bucket."""
        if not self._write:
            return
        self._lines.flush()
        if self._events is not None:
            self._events.flush()
        if self._remote is not None:
            _copy(self._local, self._remote)
            self._copied = time.monotonic()

    def close(self) -> None:
        """Flushes and closes; nothing is logged afterwards."""
        if not self._write:
            return
        self.flush()
        self._lines.close()
        if self._events is not None:
            self._events.close()
        if self._remote is not None:
            _copy(self._local, self._remote)
            shutil.rmtree(self._local)
        self._write = False

    def _tensorboard(self):
        """The events writer, opened by the first scalar; TensorBoard forgets what a killed run logged later."""
        if self._events is None:
            from cptjax.reporting.events import EventFile  # tensorboardX, only now

            self._events = EventFile(self._local / TENSORBOARD, self._resume_at_step + 1 if self._resume_at_step else 0)
        return self._events


def keep_until(path: Path, step: int) -> None:
    """Drops the lines of steps after `step` (0: all) from a metrics file, and a last one that a kill left unfinished.

    Raises:
        CptjaxError: another line than the last is not a JSON object with a step.
    """
    if step == 0:  # nothing was done: what was measured before the first step is measured again
        write_file(path, "")
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    kept, last = [], len(lines) - 1  # a whole file ends in a newline: what follows the last one is empty or unfinished
    for number, line in enumerate(lines[:last], start=1):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError) as error:
            raise CptjaxError(
                f"{path}, line {number}: not a line of metrics ({error}).\n  Repair or remove the line, then run again."
            ) from error
    if len(kept) < last or lines[last]:
        write_file(path, "".join(line + "\n" for line in kept))


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """Every line of a `metrics.jsonl`, with "nan", "inf" and "-inf" turned back into floats where a number stood."""
    text = epath.Path(path).read_text(encoding="utf-8")
    return [
        {name: float(value) if value in _NOT_JSON else value for name, value in json.loads(line).items()}
        for line in text.splitlines()
    ]


_NOT_JSON = ("nan", "inf", "-inf")


def _plain(value: Any) -> Any:
    """A numpy or JAX scalar as Python's own number; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _json_value(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _copy(source: Path, destination: epath.Path) -> None:
    """Copies every file below `source`; what is at the destination under the same name is replaced."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = destination / path.relative_to(source).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
