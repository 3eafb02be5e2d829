"""What checkpoints reached beside each other: from an evaluation.jsonl, or, without one, from what each run measured itself."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.table import CHANGE, EVALUATION
from cptjax.files import read_json
from cptjax.reporting.folder import FINISHED
from cptjax.reporting.run_content import RunContent

LOSS, OWN_SAMPLES, EXAM = "loss", "own_samples", "exam"  # suites
_NEEDED = ("checkpoint", "suite", "subset", "metric", "value")
_NOT_JSON = ("nan", "inf", "-inf")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and, where it was computed, its interval; `interval` says what varies in it, `n` over how many."""

    value: float
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    n: int | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric of one subset: by checkpoint its value, and its change from what it is compared with."""

    suite: str
    subset: str
    metric: str
    values: Mapping[str, Estimate]
    changes: Mapping[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Checkpoints side by side.

    Attributes:
        base: the checkpoint that changes are from; None where each run's are from its own first evaluation.
        labels: of the checkpoints, the base among them where there is one.
        tokens: trained on since the base, by label, where the evaluation tells.
        rows: in the order of the evaluation.
    """

    base: str | None
    labels: tuple[str, ...]
    tokens: Mapping[str, int]
    rows: tuple[Row, ...]

    @property
    def compared(self) -> tuple[str, ...]:
        """The labels without the base."""
        return tuple(label for label in self.labels if label != self.base)

    @property
    def domains(self) -> tuple[str, ...]:
        """The sources whose held-out loss was measured."""
        return tuple(dict.fromkeys(row.subset for row in self.rows if row.suite == LOSS))

    @property
    def exams(self) -> tuple[str, ...]:
        """The exams that were asked."""
        return tuple(dict.fromkeys(row.subset for row in self.rows if row.suite == EXAM))

    @property
    def intervals(self) -> tuple[str, ...]:
        """What varies in the intervals, in the words of whoever computed them."""
        estimates = (each for row in self.rows for each in (*row.values.values(), *row.changes.values()))
        return tuple(dict.fromkeys(each.interval for each in estimates if each.interval and each.low is not None))

    def row(self, suite: str, subset: str, metric: str) -> Row | None:
        """The row of that name, or None."""
        found = (row for row in self.rows if (row.suite, row.subset, row.metric) == (suite, subset, metric))
        return next(found, None)


def read_evaluation(path: epath.PathLike) -> list[dict[str, Any]]:
    """The rows of an evaluation.jsonl, or of the one in a folder.

    Raises:
        ConfigurationError: it is not there, or has no rows.
        CptjaxError: a line is not a row; names it.
    """
    file = epath.Path(path).expanduser()
    if file.is_dir():
        file = file / EVALUATION
    if not file.exists():
        raise ConfigurationError(
            f"EVALUATION = '{path}', but there is no '{file}'.\n"
            f"  Name what the job `evaluate` wrote: its OUTPUT_DIR, or its {EVALUATION}."
        )
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            missing = [name for name in _NEEDED if name not in row]
            row["value"], row["low"], row["high"] = (_number(row.get(name)) for name in ("value", "low", "high"))
        except (ValueError, TypeError, AttributeError) as error:
            raise CptjaxError(f"{file}, line {number}: not a row of an evaluation ({error}).") from None
        if missing or row["value"] is None:
            raise CptjaxError(f"{file}, line {number}: a row of an evaluation needs {', '.join(missing) or 'a value'}.")
        rows.append(row)
    if not rows:
        raise ConfigurationError(f"EVALUATION = '{path}': {file} is empty.\n  Run `evaluate` again.")
    return rows


def evaluated_base(path: epath.PathLike) -> str | None:
    """The label of the checkpoint that a finished evaluation compared the others with; None where its folder does not say."""
    file = epath.Path(path).expanduser()
    record = (file if file.is_dir() else file.parent) / FINISHED
    found = read_json(record) if record.exists() else None
    return found.get("base") if isinstance(found, dict) and found.get("job") == "evaluate" else None


def refuse_unevaluated(runs: Sequence[RunContent], rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuses runs that the evaluation does not have under their labels, or that went on since they were evaluated.

    Raises:
        ConfigurationError: the labels on both sides; or the step that was evaluated and the run's last.
    """
    steps = {row["checkpoint"]: row.get("step") for row in rows}
    if missing := [run.label for run in runs if run.label not in steps]:
        raise ConfigurationError(
            f"CHECKPOINTS has {', '.join(map(repr, missing))}, which the evaluation does not have: it has "
            f"{', '.join(map(repr, steps))}.\n  Label the runs as they were evaluated: CHECKPOINTS = {{'label': 'path', ...}}."
        )
    for run in runs:
        evaluated = steps[run.label]
        if evaluated is not None and run.saved is not None and evaluated != run.saved:
            raise ConfigurationError(
                f"{run.label!r} was evaluated at step {evaluated:,}; the run in '{run.path}' is now at step {run.saved:,}.\n"
                "  Evaluate it again (into another OUTPUT_DIR), and draw the report from that."
            )


def compare_evaluated(rows: Sequence[Mapping[str, Any]], base: str | None) -> Comparison:
    """The comparison that an evaluation makes.

    Where it holds changes ("loss_change", with intervals of their own) they are taken, and no other is shown: what it does
    not compare cannot be compared, as losses per token of different tokenizers. Where it holds none, changes are differences.

    Args:
        base: None is the first checkpoint that no changes are of (`evaluated_base` knows which it was).

    Raises:
        ConfigurationError: `base` is not among its checkpoints, or its changes are from another one.
    """
    labels = tuple(dict.fromkeys(row["checkpoint"] for row in rows))
    changed = {row["checkpoint"] for row in rows if row["metric"].endswith(CHANGE)}
    if base is None:
        base = next((label for label in labels if label not in changed), labels[0])
    if base not in labels:
        raise ConfigurationError(
            f"BASE = {base!r} is not among the checkpoints that were evaluated: {', '.join(map(repr, labels))}."
        )
    if base in changed:
        raise ConfigurationError(
            f"BASE = {base!r}, but the evaluation holds changes from another checkpoint.\n"
            "  Leave BASE out, or evaluate again with this BASE."
        )
    found: dict[tuple[str, str, str], dict[str, Estimate]] = {}
    for row in rows:
        estimate = Estimate(row["value"], row["low"], row["high"], row.get("interval"), row.get("n"))
        found.setdefault((row["suite"], row["subset"], row["metric"]), {})[row["checkpoint"]] = estimate
    compared = []
    for (suite, subset, metric), values in found.items():
        if metric.endswith(CHANGE):
            continue
        changes = found.get((suite, subset, metric + CHANGE), {})
        if not changed and base in values:
            changes = {
                label: Estimate(each.value - values[base].value) for label, each in values.items() if label != base
            }
        compared.append(Row(suite, subset, metric, values, changes))
    tokens = {row["checkpoint"]: row["tokens"] for row in rows if row.get("tokens") is not None}
    return Comparison(base, labels, tokens, tuple(compared))


def compare_runs(runs: Sequence[RunContent]) -> Comparison:
    """Runs by their own first and last evaluations; nothing has an interval."""
    rows = []
    for name in dict.fromkeys(domain.name for run in runs for domain in run.domains):
        for metric, series in (("loss", "loss"), ("bits_per_byte", "bits")):
            values, changes = {}, {}
            for run in runs:
                measured = next((getattr(domain, series) for domain in run.domains if domain.name == name), ())
                if measured:
                    values[run.label] = Estimate(measured[-1])
                if len(measured) > 1:
                    changes[run.label] = Estimate(measured[-1] - measured[0])
            rows.append(Row(LOSS, name, metric, values, changes))
    tokens = {run.label: run.lineage.tokens for run in runs if run.lineage}
    return Comparison(None, tuple(run.label for run in runs), tokens, tuple(rows))


@dataclasses.dataclass(frozen=True)
class Split:
    """Which domains count as target and which as what may be forgotten, and why, in a sentence."""

    targets: tuple[str, ...]
    forgotten: tuple[str, ...]
    why: str


def split_domains(
    comparison: Comparison,
    runs: Sequence[RunContent],
    targets: Sequence[str] | None,
    forgotten: Sequence[str] | None,
) -> Split:
    """As TARGETS and FORGETTING say. Without TARGETS: what has the largest weight in the last stage of each run; without
    FORGETTING: every other domain.

    Raises:
        ConfigurationError: a name that was not measured, or one on both sides.
    """
    domains = comparison.domains
    for macro, names in (("TARGETS", targets), ("FORGETTING", forgotten)):
        if unknown := [name for name in names or () if name not in domains]:
            raise ConfigurationError(
                f"{macro} names {unknown[0]!r}, but the domains that were measured are {', '.join(domains) or 'none'}."
            )
    if both := set(targets or ()).intersection(forgotten or ()):
        raise ConfigurationError(f"{sorted(both)[0]!r} is in TARGETS and in FORGETTING; it can be one of them.")
    why = "named by TARGETS"
    if targets is None:
        stages = [run.record.stages[-1].weights for run in runs if run.record and run.record.stages]
        largest = dict.fromkeys(max(weights, key=weights.get) for weights in stages)
        targets = [name for name in largest if name in domains and name not in (forgotten or ())]
        why = "what the last stage of each run reads most of; TARGETS would name others"
    if forgotten is None:
        forgotten = [name for name in domains if name not in targets]
    return Split(tuple(targets), tuple(forgotten), why)


def common_metric(comparison: Comparison, domains: Sequence[str]) -> str:
    """What changes of all these domains are given in: "loss", or "bits_per_byte" where losses per token are not compared.

    A checkpoint without any loss of a domain (a system has none) has no say in it.
    """
    rows = [comparison.row(LOSS, domain, "loss") for domain in domains]
    measured = {label for row in comparison.rows if row.suite == LOSS for label in row.values}
    asked = measured.intersection(comparison.compared)
    return "loss" if all(row and set(row.changes) >= asked for row in rows) else "bits_per_byte"


def mean_change(comparison: Comparison, domains: Sequence[str], metric: str, label: str) -> Estimate | None:
    """The change of a checkpoint averaged over domains; None where one of them lacks it.

    An interval is given for a single domain only: what varies in those of several is not independent.
    """
    rows = [comparison.row(LOSS, domain, metric) for domain in domains]
    changes = [row.changes[label] for row in rows if row and label in row.changes]
    if len(changes) < len(domains) or not changes:
        return None
    return changes[0] if len(changes) == 1 else Estimate(sum(change.value for change in changes) / len(changes))


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) and value not in _NOT_JSON or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def varies_beyond_documents(interval: str) -> bool:
    """Whether an interval's words say that something else than documents varies: the seed, the order, the weights drawn."""
    return any(word in interval.lower() for word in ("seed", "order", "initiali"))


def finite(estimate: Estimate | None) -> bool:
    """Whether there is a number."""
    return estimate is not None and math.isfinite(estimate.value)
