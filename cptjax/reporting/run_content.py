"""What a run's folder says, as plain data. What is missing or damaged becomes a note: a report of a killed run comes out too."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.checkpoints.lineage import Lineage, RunRecord
from cptjax.checkpoints.source import CHECKPOINTS
from cptjax.checkpoints.store import CheckpointStore
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.table import EVALUATION
from cptjax.files import read_json
from cptjax.reporting.folder import CONFIG, DATA, FINISHED, METRICS, PLAN, RUN
from cptjax.reporting.goodput import GOODPUT, summarised
from cptjax.reporting.lines_by_step import SAMPLES
from cptjax.reporting.start_up import describe_start_up

_NOT_JSON = ("nan", "inf", "-inf")  # as metrics.jsonl writes them
_MEASURED = re.compile(r"validation/(.+)/(loss|bits_per_byte)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Domain:
    """One source's held-out loss at each evaluation of the run.

    Attributes:
        role: "trained" or "evaluated only"; None where the run does not say.
        steps: of the evaluations, ascending; loss (nats per token) and bits per byte at each.
        identity: of the held-out text, where data.json tells: runs that differ in it measured different text.
    """

    name: str
    role: str | None
    steps: tuple[int, ...]
    loss: tuple[float, ...]
    bits: tuple[float, ...]
    identity: tuple[Any, ...] | None


@dataclasses.dataclass(frozen=True)
class PlannedStage:
    """A stage as it was planned: its token weights by source."""

    name: str
    steps: int
    weights: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class RunContent:
    """A run's folder, read.

    Attributes:
        label, path: how the report calls it, and the folder as it was named.
        starts: the entries of run.json, oldest first.
        config, plan: the texts of config.gin and plan.txt; None where there is none.
        data: data.json by source; empty where there is none.
        finished: finished.json; None for a run that is not done.
        lineage, saved: of the newest checkpoint, and its step; None before the first.
        planned: the stages of the whole run; empty where no checkpoint tells.
        training: the lines of metrics.jsonl that log a step.
        domains: held-out losses, those trained on first.
        passed_over: steps that were passed over on request.
        samples: the lines of samples.jsonl: what the run wrote after its prompts; empty where it did not.
        exams: the rows of evaluation.jsonl: what it answered at its evaluations; empty where it was asked nothing.
        goodput: seconds by kind, and their share of steps (goodput.summarised); empty where there is no record.
        start_up: of the last start that is known (start_up.StartUp.record); empty where there is no record.
        notes: what is missing or damaged, in sentences.
    """

    label: str
    path: str
    starts: tuple[Mapping[str, Any], ...]
    config: str | None
    plan: str | None
    data: Mapping[str, Mapping[str, Any]]
    finished: Mapping[str, Any] | None
    lineage: Lineage | None
    saved: int | None
    planned: tuple[PlannedStage, ...]
    training: tuple[Mapping[str, Any], ...]
    domains: tuple[Domain, ...]
    passed_over: tuple[int, ...]
    samples: tuple[Mapping[str, Any], ...]
    exams: tuple[Mapping[str, Any], ...]
    goodput: Mapping[str, float]
    start_up: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def record(self) -> RunRecord | None:
        """This run's own entry in the lineage; None for a folder that no run of ours has trained in."""
        return self.lineage.runs[-1] if self.lineage and self.lineage.runs else None

    @property
    def batch_tokens(self) -> int | None:
        """Target positions of a step, where a step was logged."""
        if not self.training:
            return None
        line = self.training[-1]
        return round(line["tokens_read"] / line["step"])

    @property
    def last_step(self) -> int:
        """The last step that was logged."""
        logged = [line["step"] for line in self.training] + [step for domain in self.domains for step in domain.steps]
        return max(logged, default=0)

    @property
    def planned_steps(self) -> int | None:
        """Steps of the whole run, where the folder tells."""
        planned = sum(stage.steps for stage in self.planned)
        return planned or (self.finished or {}).get("steps")

    @property
    def skipped(self) -> tuple[Mapping[str, Any], ...]:
        """The steps that were refused: their loss or gradient was not finite, or stood out."""
        return tuple(line for line in self.training if line.get("skipped"))

    def values(self, name: str) -> list[float]:
        """A logged number at every step; nan where a step lacks it."""
        return [_as_number(line.get(name)) for line in self.training]


def read_run(path: epath.PathLike, label: str | None = None) -> RunContent:
    """Everything that the folder at `path` says about its run. No weights are read.

    Raises:
        ConfigurationError: there is no such folder, or it is not a run's.
    """
    folder = epath.Path(path).expanduser()
    _refuse_other_folders(folder)
    notes: list[str] = []
    data = _record(folder / DATA, notes) or {}
    lines = _lines(folder / METRICS, notes)
    metadata, saved = _metadata(folder / CHECKPOINTS, notes)
    lineage = _lineage(metadata, notes)
    trained = set(lineage.runs[-1].exposures) if lineage and lineage.runs else set()
    return RunContent(
        label=label or folder.name or str(folder),
        path=str(path),
        starts=tuple((_record(folder / RUN, notes) or {}).get("starts", ())),
        config=_text(folder / CONFIG, notes),
        plan=_text(folder / PLAN, notes),
        data=data,
        finished=_record(folder / FINISHED, notes, expected=False),
        lineage=lineage,
        saved=saved,
        planned=_planned(metadata),
        training=tuple(line for line in lines if "loss" in line and line.get("tokens_read") and line["step"]),
        domains=_domains(lines, data, trained),
        passed_over=tuple(line["step"] for line in lines if line.get("passed_over")),
        samples=_samples(folder / SAMPLES, notes),
        exams=_exams(folder / EVALUATION, notes),
        goodput=_goodput(folder / GOODPUT, notes),
        start_up=_start_up(folder / GOODPUT),
        notes=tuple(notes),
    )


def _refuse_other_folders(folder: epath.Path) -> None:
    if not folder.exists():
        raise ConfigurationError(f"There is nothing at '{folder}'.\n  Name the folder of a run: its OUTPUT_DIR.")
    if folder.is_dir() and any((folder / name).exists() for name in (RUN, CONFIG, METRICS)):
        return
    hint = "Name the folder of a run: its OUTPUT_DIR."
    if folder.parent.name == CHECKPOINTS:
        hint = f"Name the run's folder: '{folder.parent.parent}'."
    elif (folder / "config.json").exists():
        hint = (
            "It is a Hugging Face folder, which keeps no record of its training. In a report it stands among the\n"
            "  checkpoints that `evaluate` has measured: EVALUATION names their evaluation.jsonl, BASE one of them."
        )
    raise ConfigurationError(f"'{folder}' is not a run's folder: it holds no {RUN}.\n  {hint}")


def _record(path: epath.Path, notes: list[str], expected: bool = True) -> dict[str, Any] | None:
    """A JSON object; None, with a note, where it is damaged, or missing although it is expected."""
    if not path.exists():
        if expected:
            notes.append(f"There is no {path.name}.")
        return None
    try:
        found = read_json(path)
    except (CptjaxError, OSError) as error:
        notes.append(str(error).splitlines()[0])
        return None
    if not isinstance(found, dict):
        notes.append(f"{path.name} is damaged: it is not a JSON object.")
        return None
    return found


def _goodput(path: epath.Path, notes: list[str]) -> Mapping[str, float]:
    """Where the time went; empty, with a note if it is damaged, where the folder does not tell."""
    try:
        return summarised(read_json(path)) if path.exists() else {}
    except (CptjaxError, OSError, LookupError, TypeError, AttributeError) as error:
        notes.append(f"{path.name} is damaged: {str(error).splitlines()[0]}")
        return {}


def _start_up(path: epath.Path) -> Mapping[str, Any]:
    """What the newest start that has a record of it took; `_goodput` notes a damaged file."""
    try:
        known = [entry["start_up"] for entry in read_json(path) if "start_up" in entry] if path.exists() else []
        return known[-1] if known and describe_start_up(known[-1]) else {}
    except (CptjaxError, OSError, LookupError, TypeError, AttributeError, ValueError):
        return {}


def _samples(path: epath.Path, notes: list[str]) -> tuple[Mapping[str, Any], ...]:
    """What a run wrote after its prompts; empty, with a note if the file is damaged, where there is none."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        return tuple({"step": int(line["step"]), "prompt": line["prompt"], "text": line["text"]} for line in lines)
    except (ValueError, LookupError, TypeError) as error:
        notes.append(f"{path.name} is damaged: {str(error).splitlines()[0]}")
        return ()


def _exams(path: epath.Path, notes: list[str]) -> tuple[Mapping[str, Any], ...]:
    """What a run answered in exams, step by step; empty, with a note if the file is damaged, where it was asked nothing."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        return tuple(
            {
                "step": int(line["step"]),
                **{name: line[name] for name in ("subset", "metric", "n")},
                **{name: _as_number(line[name]) for name in ("value", "low", "high")},
            }
            for line in lines
        )
    except (ValueError, LookupError, TypeError) as error:
        notes.append(f"{path.name} is damaged: {str(error).splitlines()[0]}")
        return ()


def _text(path: epath.Path, notes: list[str]) -> str | None:
    if not path.exists():
        notes.append(f"There is no {path.name}.")
        return None
    return path.read_bytes().decode("utf-8", errors="replace")


def _lines(path: epath.Path, notes: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that can be read; a kill may leave the last one unfinished."""
    found: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, line in enumerate((_text(path, notes) or "").splitlines(), start=1):
        try:
            content = json.loads(line)
            content["step"] = int(content["step"])
        except (ValueError, TypeError, KeyError):
            damaged.append(number)
            continue
        found.append(
            {
                name: float(value) if isinstance(value, str) and value in _NOT_JSON else value
                for name, value in content.items()
            }
        )
    if damaged:
        shown = ", ".join(map(str, damaged[:5])) + (f" and {len(damaged) - 5} more" if len(damaged) > 5 else "")
        notes.append(f"{METRICS}: what cannot be read is left out (line {shown}).")
    return found


def _metadata(directory: epath.Path, notes: list[str]) -> tuple[dict[str, Any], int | None]:
    """What the newest checkpoint says, and its step."""
    store = CheckpointStore(directory)
    saved = store.latest()
    if saved is None:
        notes.append("No checkpoint has been saved: lineage, FLOPs and stages are not known.")
        return {}, None
    try:
        return store.metadata(saved), saved
    except CptjaxError as error:
        notes.append(str(error).splitlines()[0])
        return {}, saved


def _lineage(metadata: Mapping[str, Any], notes: list[str]) -> Lineage | None:
    if not metadata:
        return None
    try:
        return Lineage.from_json(metadata.get("lineage"))
    except CptjaxError as error:
        notes.append(str(error).splitlines()[0])
        return None


def _planned(metadata: Mapping[str, Any]) -> tuple[PlannedStage, ...]:
    stages = metadata.get("plan", {}).get("data", {}).get("stages", ())
    return tuple(PlannedStage(stage["name"], stage["steps"], stage["weights"]) for stage in stages)


def _domains(
    lines: Sequence[Mapping[str, Any]], data: Mapping[str, Mapping[str, Any]], trained: set[str]
) -> tuple[Domain, ...]:
    measured: dict[str, dict[int, dict[str, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if match := _MEASURED.fullmatch(name):
                measured.setdefault(match[1], {}).setdefault(line["step"], {})[match[2]] = _as_number(value)
    domains = []
    for name, by_step in measured.items():
        steps = sorted(by_step)
        role = data.get(name, {}).get("role") or ("trained" if name in trained else None)
        loss, bits = (
            tuple(by_step[step].get(metric, math.nan) for step in steps) for metric in ("loss", "bits_per_byte")
        )
        domains.append(Domain(name, role, tuple(steps), loss, bits, _held_out(data.get(name))))
    return tuple(sorted(domains, key=lambda domain: domain.role != "trained"))


def _held_out(source: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    if not source:
        return None
    return tuple(source.get(name) for name in ("fingerprint", "held_out_documents", "held_out_tokens"))


def _as_number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
