"""The tables of a report, as plain cells."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.checkpoints.lineage import RunRecord
from cptjax.counts import count
from cptjax.evaluation.table import EXAM_CLEAN, UNITS
from cptjax.evaluation.trades import trades
from cptjax.reporting.comparison import (
    EXAM,
    LOSS,
    OWN_SAMPLES,
    Comparison,
    Estimate,
    Row,
    Split,
    common_metric,
    finite,
    mean_change,
)
from cptjax.reporting.run_content import RunContent
from cptjax.reporting.wording import NONE, flops, listed, number, percent, plural, rate, signed

_SETTING = re.compile(r"([A-Za-z_][\w./]*) = (.*)")
_SKIPPED_SHOWN = 20
_SAMPLES_SHOWN = 5  # of a prompt
_OWN = ("OUTPUT_DIR",)  # differs between any two runs


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a cell says, and what stands under it in small."""

    text: str
    small: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """`label` names the table for those who do not see it; the columns in `numbers` are set flush right."""

    label: str
    head: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: frozenset[int] = frozenset()


def as_table(
    label: str, head: Sequence[str | Cell], rows: Sequence[Sequence[str | Cell]], numbers: Sequence[int]
) -> Table:
    """A table of plain texts and cells; `numbers` are the columns that hold numbers."""

    def cells(row):
        return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row)

    return Table(label, cells(head), tuple(cells(row) for row in rows), frozenset(numbers))


def data_table(run: RunContent) -> Table | None:
    """Each source: what it holds, and what this run (and, where it branched off, its trunk) read of it."""
    read = run.record.exposures if run.record else {}
    in_all = run.lineage.exposures() if run.lineage else {}
    carried = any(name not in read or exposure.rows != read[name].rows for name, exposure in in_all.items())
    rows = []
    for name in dict.fromkeys([*run.data, *in_all]):
        source, exposure, total = run.data.get(name, {}), read.get(name), in_all.get(name)
        known = exposure or total
        rows.append(
            [
                Cell(name, _given(source)),
                source.get("role", NONE),
                _quantity(source.get("documents")),
                _quantity(source.get("tokens")),
                _quantity(source.get("bytes")),
                Cell(_quantity(source.get("held_out_tokens")), _documents(source.get("held_out_documents"))),
                count(exposure.tokens) if exposure else NONE,
                f"{exposure.epochs:.3g}" if exposure else NONE,
                *([f"{total.epochs:.3g}" if total else NONE] if carried else []),
                (source.get("fingerprint") or (known.fingerprint if known else NONE))[:12],
            ]
        )
    head = ["source", "role", "documents", "tokens", "bytes", "held-out tokens", "tokens read", "epochs"]
    head += [Cell("in all", "with its trunk's"), "fingerprint"] if carried else ["fingerprint"]
    return as_table("Data", head, rows, range(2, len(head) - 1)) if rows else None


def lineage_table(run: RunContent) -> Table | None:
    """The base, then every run since, then their sums."""
    if run.lineage is None:
        return None
    origin, total = run.lineage.origin, run.lineage
    base = "random weights" if origin.kind == "random" else "Hugging Face folder"
    known = count(origin.tokens) if origin.tokens else "not known" if origin.kind == "hugging_face" else "0"
    rows = [[Cell(base, origin.path), Cell("base", origin.identity[:12]), "", known, *[NONE] * 6]]
    rows += [_lineage_row(record) for record in total.runs]
    rows.append(["since the base", "", "", count(total.tokens), count(total.bytes), flops(total.flops), *[""] * 4])
    head = [
        "run",
        "verb",
        Cell("stages", "and schedule"),
        "tokens",
        "bytes",
        "FLOPs",
        Cell("learning rate", "peak → final"),
        "annealed",
    ]
    return as_table("Lineage", [*head, "seed", "commit"], rows, (3, 4, 5, 6))


def _lineage_row(record: RunRecord) -> list[str | Cell]:
    rates = record.learning_rate
    return [
        Cell(record.run.rstrip("/").rpartition("/")[2], record.run),
        Cell(record.verb, f"from {record.started_from}" if record.started_from else ""),
        Cell("; ".join(f"{stage.name}: {_mixture(stage.weights)}" for stage in record.stages), rates.schedule),
        count(sum(stage.tokens for stage in record.stages)),
        count(sum(stage.bytes for stage in record.stages)),
        flops(sum(stage.flops for stage in record.stages)),
        f"{rate(rates.peak)} → {rate(rates.final)}",
        "yes" if record.annealed else "no",
        str(record.seed),
        (record.commit or "no checkout")[:12],
    ]


def _mixture(weights: Mapping[str, float]) -> str:
    total = sum(weights.values())
    return ", ".join(f"{name} {percent(weight / total)}" for name, weight in weights.items() if weight)


def skipped_table(run: RunContent) -> Table | None:
    """The first steps that were skipped."""
    rows = [
        [
            f"{line['step']:,}",
            str(line.get("loss")),
            str(line.get("gradient_norm")),
            f"{line['deviations']:.1f}" if line.get("deviations") else NONE,
            rate(line.get("learning_rate")),
        ]
        for line in run.skipped[:_SKIPPED_SHOWN]
    ]
    head = ["step", "loss", "gradient norm", "deviations above the steps before", "learning rate"]
    return as_table("Skipped steps", head, rows, range(5)) if rows else None


def starts_table(run: RunContent) -> Table | None:
    """Every time the run was started."""
    rows = [
        [
            start.get("time", NONE),
            Cell(start.get("host", NONE), start.get("directory", "")),
            commit(start),
            _devices(start.get("devices", {})),
            ", ".join(f"{name} {version}" for name, version in start.get("versions", {}).items()),
        ]
        for start in run.starts
    ]
    return as_table("Starts", ["started", "host", "commit", "devices", "versions"], rows, ()) if rows else None


def samples_table(run: RunContent) -> Table | None:
    """What the run wrote after each of its prompts: at first, in between, and at last."""
    rows: list[list[str | Cell]] = []
    for prompt in dict.fromkeys(line["prompt"] for line in run.samples):
        lines = [line for line in run.samples if line["prompt"] == prompt]
        shown = sorted({round(i * (len(lines) - 1) / (_SAMPLES_SHOWN - 1)) for i in range(_SAMPLES_SHOWN)})
        rows += [
            [Cell(prompt or "(nothing)") if index == 0 else "", f"{lines[index]['step']:,}", lines[index]["text"]]
            for index in shown
        ]
    return as_table("Samples", ["prompt", "step", "text, greedily"], rows, (1,)) if rows else None


def checkpoint_head(comparison: Comparison) -> list[Cell]:
    """The head of the columns that stand for checkpoints: each, and its change."""
    head = []
    for label in comparison.labels:
        tokens = comparison.tokens.get(label)
        head.append(Cell(label, f"{count(tokens)} tokens since the base" if tokens is not None else ""))
        if label != comparison.base:
            since = "from its first evaluation" if comparison.base is None else f"from {comparison.base}"
            head.append(Cell("change", since))
    return head


def results_table(comparison: Comparison, split: Split) -> Table | None:
    """A row for each metric of each domain; a column for each checkpoint, and one for its change. Exams have their own."""
    head: list[str | Cell] = ["measured", "unit", *checkpoint_head(comparison)]
    rows, before = [], None
    for row in comparison.rows:
        if row.suite in (EXAM, EXAM_CLEAN):
            continue
        named = (row.suite, row.subset)
        cells: list[str | Cell] = [_measured(row, split) if named != before else "", UNITS.get(row.metric, row.metric)]
        before = named
        for label in comparison.labels:
            cells.append(estimate_cell(row.values.get(label), number))
            if label != comparison.base:
                cells.append(estimate_cell(row.changes.get(label), signed))
        rows.append(cells)
    return as_table("Results", head, rows, range(2, len(head))) if rows else None


def trades_table(comparison: Comparison, split: Split) -> Table | None:
    """A row for each checkpoint: its gain on the targets, and what it lost of each domain that may be forgotten."""
    if not split.targets or not split.forgotten:
        return None
    metric = common_metric(comparison, [*split.targets, *split.forgotten])
    unit = UNITS[metric]
    gains = {label: mean_change(comparison, split.targets, metric, label) for label in comparison.compared}
    rows: dict[str, list[str | Cell]] = {}
    for label, gain in gains.items():
        if finite(gain):
            low, high = (None if bound is None else -bound for bound in (gain.high, gain.low))
            rows[label] = [
                label,
                estimate_cell(dataclasses.replace(gain, value=-gain.value, low=low, high=high), signed),
            ]
    for domain in split.forgotten:
        lost = {label: mean_change(comparison, [domain], metric, label) for label in rows}
        found = trades({label: (gains[label].value, each.value) for label, each in lost.items() if finite(each)})
        for label, cells in rows.items():
            cell, trade = estimate_cell(lost[label], signed), found.get(label)
            said = [cell.small] if cell.small else []
            if trade is not None and trade.rate is not None:
                said.append(f"{number(trade.rate)} for each gained")
            if trade is not None and trade.on_frontier and len(found) > 1:
                said.append("on the frontier")
            cells.append(Cell(cell.text, "; ".join(said)))
    head = ["checkpoint", Cell(f"gain on {listed(split.targets)}", unit)]
    head += [Cell(f"forgetting of {domain}", unit) for domain in split.forgotten]
    return as_table("Gain and forgetting", head, list(rows.values()), range(1, len(head))) if rows else None


def differences_table(runs: Sequence[RunContent]) -> Table | None:
    """The settings in which the runs' configurations differ; None where a run kept none, or nothing differs."""
    if any(run.config is None for run in runs):
        return None
    settings = [_settings(run.config or "") for run in runs]
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [
        [name, *(each.get(name, NONE) for each in settings)]
        for name in names
        if name not in _OWN and len({each.get(name) for each in settings}) > 1
    ]
    return as_table("What differs", ["setting", *(run.label for run in runs)], rows, ()) if rows else None


def commit(start: Mapping[str, Any]) -> Cell:
    """A start's commit, and whether files differed from it."""
    git = start.get("git") or {}
    if not git.get("commit"):
        return Cell("not a git checkout")
    changed = {True: "with changes that are not committed (dirty)", False: "clean"}.get(git.get("dirty"), "")
    return Cell(git["commit"][:12], changed)


def _settings(config: str) -> dict[str, str]:
    """The bindings of a config.gin as text, without the comments that say where they were set."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in config.splitlines():
        if match := _SETTING.fullmatch(line):
            lines = found.setdefault(match[1], [])
            lines.append(match[2])
        elif line.startswith((" ", "}", "]", ")")):
            lines.append(line.strip())
        else:
            lines = []
    return {name: " ".join(value).rpartition("  # ")[0] or " ".join(value) for name, value in found.items()}


def _measured(row: Row, split: Split) -> Cell:
    n = next((estimate.n for estimate in row.values.values() if estimate.n is not None), None)
    if row.suite == OWN_SAMPLES:
        return Cell(f"{row.subset}'s own samples", plural(n, "sample") if n is not None else "")
    role = "target" if row.subset in split.targets else "forgetting" if row.subset in split.forgotten else ""
    name = row.subset if row.suite == LOSS else f"{row.suite}: {row.subset}"
    of_questions = any((estimate.interval or "").startswith("question") for estimate in row.values.values())
    how_many = "" if n is None else plural(n, "question" if of_questions else "document")
    return Cell(name, ", ".join(filter(None, (role if row.suite == LOSS else "", how_many))))


def estimate_cell(estimate: Estimate | None, form) -> Cell:
    """A number in the `form` of `wording`, its interval in small."""
    if estimate is None:
        return Cell(NONE)
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"[{form(estimate.low)}, {form(estimate.high)}]"
    return Cell(form(estimate.value, 4), interval)


def _given(source: Mapping[str, Any]) -> str:
    given = source.get("given", "")
    given = given["Text"]["where"] if isinstance(given, dict) else given
    return given if isinstance(given, str) else ", ".join(map(str, given))


def _quantity(value: float | None) -> str:
    return NONE if value is None else count(value)


def _documents(quantity: int | None) -> str:
    return "" if quantity is None else plural(quantity, "document")


def _devices(devices: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in devices.items()) or NONE
