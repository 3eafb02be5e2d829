"""What a run wrote after its fixed prompts, step by step: samples.jsonl in its folder."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.files import write_file

SAMPLES = "samples.jsonl"


class SampleLog:
    """Adds to a run's samples.jsonl a line for each prompt of a step: `step`, `prompt`, `text`, `tokens`.

    A run that is killed and started again has each step once. The file is written anew each time, whole or not at all.
    """

    def __init__(self, folder: epath.PathLike, resume_at_step: int = 0, *, write: bool = True):
        """Of a run that begins (0), or goes on from the checkpoint of `resume_at_step`; see `MetricsWriter`."""
        self._path, self._write = epath.Path(folder) / SAMPLES, write
        self._lines: list[Mapping[str, Any]] = []
        if self._path.exists():
            text = self._path.read_text(encoding="utf-8")
            self._lines = [line for line in map(json.loads, text.splitlines()) if line["step"] <= resume_at_step]
        self._steps = {line["step"] for line in self._lines} if resume_at_step else set()

    def has(self, step: int) -> bool:
        """Whether `step` was sampled before this start."""
        return step in self._steps

    def log(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Adds the samples of a step."""
        self._lines = [line for line in self._lines if line["step"] != step] + [{"step": step, **x} for x in samples]
        if self._write:
            content = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in self._lines)
            write_file(self._path, content)
