"""A run's JSON lines that belong to steps, other than its metrics: what it wrote after its prompts, how it did in exams."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.files import write_file

SAMPLES = "samples.jsonl"  # `step`, `prompt`, `text`, `tokens`


class LinesByStep:
    """Adds to a file of a run's folder the lines of a step.

    A run that is killed and started again has each step once. The file is written anew each time, whole or not at all.
    """

    def __init__(self, file: epath.PathLike, resume_at_step: int = 0, *, write: bool = True):
        """Of a run that begins (0), or goes on from the checkpoint of `resume_at_step`; see `MetricsWriter`."""
        self._path, self._write = epath.Path(file), write
        self._lines: list[Mapping[str, Any]] = []
        if self._path.exists():
            text = self._path.read_text(encoding="utf-8")
            self._lines = [line for line in map(json.loads, text.splitlines()) if line["step"] <= resume_at_step]
        self._steps = {line["step"] for line in self._lines} if resume_at_step else set()

    def has(self, step: int) -> bool:
        """Whether there were lines of `step` before this start."""
        return step in self._steps

    def log(self, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds the lines of a step, each with its `step`."""
        self._lines = [line for line in self._lines if line["step"] != step] + [{"step": step, **x} for x in lines]
        if self._write:
            content = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in self._lines)
            write_file(self._path, content)
