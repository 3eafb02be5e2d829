"""report.html: a run's folder, or several beside each other, as one page that needs nothing else.

Everything comes from the folders and from an evaluation.jsonl, so that the same content gives the same bytes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.evaluation.bootstrap import FEW_DOCUMENTS
from cptjax.evaluation.table import partly_compared, without_curves
from cptjax.files import write_file
from cptjax.reporting.charts import effect_charts, overlaid_charts, own_sample_charts, run_charts, source_styles
from cptjax.reporting.commands import commands
from cptjax.reporting.comparison import (
    LOSS,
    Comparison,
    Split,
    compare_evaluated,
    compare_runs,
    refuse_unevaluated,
    split_domains,
    varies_beyond_documents,
)
from cptjax.reporting.exams import exam_charts, exams_table
from cptjax.reporting.exams_in_training import exams_as_trained_table
from cptjax.reporting.palette import BASE, Style, styles
from cptjax.reporting.plots import Chart
from cptjax.reporting.rendering import render
from cptjax.reporting.run_content import RunContent, read_run
from cptjax.reporting.savings import savings_table, trade_rows
from cptjax.reporting.summary import Card, Fact, cards, facts, sentences, status
from cptjax.reporting.tables import (
    Table,
    data_table,
    differences_table,
    lineage_table,
    results_table,
    samples_table,
    skipped_table,
    starts_table,
    trades_table,
)
from cptjax.reporting.wording import listed, plural

REPORT = "report.html"
_NAMED = 3  # runs that a title names


@dataclasses.dataclass(frozen=True)
class RunSection:
    """What the page says of one run."""

    run: RunContent
    status: str
    sentences: tuple[str, ...]
    cards: tuple[Card, ...]
    facts: tuple[Fact, ...]
    charts: tuple[Chart, ...]
    data: Table | None
    lineage: Table | None
    skipped: Table | None
    starts: Table | None
    samples: Table | None
    exams: Table | None
    commands: tuple[tuple[str, str], ...]  # what each does, and itself


@dataclasses.dataclass(frozen=True)
class ComparisonSection:
    """What the page says of several checkpoints."""

    sentences: tuple[str, ...]
    verdict: str
    results: Table | None
    exams: Table | None
    exam_charts: tuple[Chart, ...]
    trades: Table | None
    effects: tuple[Chart, ...]
    own_samples: tuple[Chart, ...]
    savings: Table | None
    curves: tuple[Chart, ...]
    differences: Table | None


def write_run_report(folder: epath.PathLike) -> epath.Path:
    """Writes `<folder>/report.html` for the run in `folder`, finished or not.

    Raises:
        ConfigurationError: it is not a run's folder.
    """
    path = epath.Path(folder).expanduser() / REPORT
    write_file(path, page([read_run(folder)]))
    return path


def page(
    runs: Sequence[RunContent],
    evaluation: Sequence[Mapping[str, Any]] | None = None,
    base: str | None = None,
    targets: Sequence[str] | None = None,
    forgotten: Sequence[str] | None = None,
    title: str | None = None,
) -> str:
    """The whole page as HTML.

    Args:
        runs: in the order of the page; their labels differ.
        evaluation: the rows of an evaluation.jsonl, if there is one.
        base: the label in `evaluation` that the others are compared with; None: the first that no changes are of.
        targets, forgotten: which domains are to be gained on, and which may be forgotten; None: worked out from the runs.

    Raises:
        ConfigurationError: a run, a base or a domain that was not evaluated.
    """
    section = None
    if evaluation is not None or len(runs) > 1:
        savings, partly = None, []
        if evaluation is None:
            comparison = compare_runs(runs)
        else:
            savings, evaluation = savings_table(evaluation), without_curves(evaluation)
            comparison = compare_evaluated(evaluation, base)
            refuse_unevaluated(runs, evaluation)
            partly = partly_compared(evaluation, comparison.base)
        section = _comparison(runs, comparison, split_domains(comparison, runs, targets, forgotten), partly, savings)
    title = _title(runs) if title is None else title
    looks = source_styles(runs)
    sections = [_section(run, f"run{number}", looks) for number, run in enumerate(runs, start=1)]
    return render("report.html.j2", title=title, comparison=section, sections=sections)


def evaluation_tables(
    runs: Sequence[RunContent],
    evaluation: Sequence[Mapping[str, Any]],
    base: str | None = None,
    targets: Sequence[str] | None = None,
    forgotten: Sequence[str] | None = None,
) -> list[Table]:
    """The tables of the page that tell of the evaluation; arguments as of `page`."""
    comparison = compare_evaluated(without_curves(evaluation), base)
    split = split_domains(comparison, runs, targets, forgotten)
    of_checkpoints = (results_table(comparison, split), trades_table(comparison, split), exams_table(comparison))
    found = (*of_checkpoints, savings_table(evaluation))
    return [table for table in found if table is not None]


def evaluation_trades(
    runs: Sequence[RunContent],
    evaluation: Sequence[Mapping[str, Any]],
    base: str | None = None,
    targets: Sequence[str] | None = None,
    forgotten: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The table of gain and forgetting as rows of JSON; arguments as of `page`."""
    comparison = compare_evaluated(without_curves(evaluation), base)
    return trade_rows(comparison, split_domains(comparison, runs, targets, forgotten))


def _title(runs: Sequence[RunContent]) -> str:
    if len(runs) == 1:
        return f"Run {runs[0].label}"
    return listed([run.label for run in runs]) if len(runs) <= _NAMED else f"{len(runs)} runs"


def _section(run: RunContent, name: str, looks: Mapping[str, Style]) -> RunSection:
    return RunSection(
        run=run,
        status=status(run),
        sentences=tuple(sentences(run)),
        cards=tuple(cards(run)),
        facts=tuple(facts(run)),
        charts=tuple(run_charts(run, name, looks)),
        data=data_table(run),
        lineage=lineage_table(run),
        skipped=skipped_table(run),
        starts=starts_table(run),
        samples=samples_table(run),
        exams=exams_as_trained_table(run),
        commands=tuple(commands(run)),
    )


def _comparison(
    runs: Sequence[RunContent], comparison: Comparison, split: Split, partly: Sequence[str], savings: Table | None
) -> ComparisonSection:
    looks = _looks(runs, comparison)
    return ComparisonSection(
        sentences=tuple(_said(runs, comparison, split, partly)),
        verdict=_verdict(runs, comparison),
        results=results_table(comparison, split),
        exams=exams_table(comparison),
        exam_charts=tuple(exam_charts(comparison, looks)),
        trades=trades_table(comparison, split),
        effects=tuple(effect_charts(comparison, split, looks)),
        own_samples=tuple(own_sample_charts(comparison, looks)),
        savings=savings,
        curves=tuple(overlaid_charts(runs, looks)) if len(runs) > 1 else (),
        differences=differences_table(runs) if len(runs) > 1 else None,
    )


def _looks(runs: Sequence[RunContent], comparison: Comparison) -> dict[str, Style]:
    """A look for every label: the runs' in order, then other checkpoints'; the base's own, unless a run is the base."""
    labels = [run.label for run in runs]
    looks = styles([*labels, *comparison.compared])
    if comparison.base is not None and comparison.base not in labels:
        looks[comparison.base] = BASE
    return looks


def _said(runs: Sequence[RunContent], comparison: Comparison, split: Split, partly: Sequence[str]) -> list[str]:
    said = []
    if comparison.base is not None:
        others = [f"“{label}”" for label in comparison.compared]
        said.append(
            f"{listed(others) or 'Nothing'} compared with “{comparison.base}”: held-out loss of each domain, in nats per token "
            "and bits per byte. Less is better; a change below zero is a gain."
        )
    else:
        said.append(
            f"{plural(len(runs), 'run')} beside each other, each by its own last evaluation and the change from its own first. "
            "No evaluation of all of them on one set of texts was given (EVALUATION)."
        )
    if split.targets:
        said.append(f"Target: {listed(split.targets)} ({split.why}).")
        said.append(f"Forgetting is measured on: {listed(split.forgotten) or 'no domain'}.")
    else:
        said.append("No domain is known to be the target: TARGETS names it.")
    if comparison.exams:
        said.append(
            f"In {plural(len(comparison.exams), 'exam')} more is better; p is how likely a change as large is between two that are "
            "equally good, each test taken alone."
        )
    said += [f"{sentence}." for sentence in partly]
    if few := _measured_on_few(comparison):
        said.append(f"Measured on fewer than {FEW_DOCUMENTS} documents, so that intervals say little: {listed(few)}.")
    return said


def _measured_on_few(comparison: Comparison) -> list[str]:
    """The domains whose bootstrap over documents is too narrow to be believed."""
    found = {}
    for row in comparison.rows:
        counts = [estimate.n for estimate in row.values.values() if estimate.n is not None]
        if row.suite == LOSS and counts and min(counts) < FEW_DOCUMENTS:
            found[row.subset] = min(counts)
    return [f"{name} ({count})" for name, count in found.items()]


def _verdict(runs: Sequence[RunContent], comparison: Comparison) -> str:
    """What varies in the intervals, and whether anything may be concluded."""
    varies = f"What varies in the intervals: {'; '.join(comparison.intervals)}."
    if any(varies_beyond_documents(interval) for interval in comparison.intervals):
        return varies
    what = f"{varies} Another seed would move every number." if comparison.intervals else "No number has an interval."
    seeds = sorted({run.record.seed for run in runs if run.record})
    if len(seeds) > 1:
        return f"{what} The runs' seeds are {listed([str(seed) for seed in seeds])}, but no interval is over seeds: no verdict."
    return f"{what} One seed{f' ({seeds[0]})' if seeds else ''}: no verdict."
