"""What a report shows of exams: accuracies as bars beside what knowing nothing would give, and everything in a table."""

from collections.abc import Mapping

from cptjax.evaluation.table import COUNTS, EXAM_CLEAN, EXAM_UNITS, P_VALUE
from cptjax.reporting.comparison import EXAM, Comparison, Estimate, finite
from cptjax.reporting.estimate_plots import Bar, Reference, bars
from cptjax.reporting.palette import Style
from cptjax.reporting.plots import Chart
from cptjax.reporting.tables import Cell, Table, as_table, checkpoint_head, estimate_cell
from cptjax.reporting.wording import NONE, number, plural, signed

_MOST_BARS = 12
_FORMS = {"letter": "picking a letter", "cloze": "the likeliest choice"}


def exam_charts(comparison: Comparison, looks: Mapping[str, Style]) -> list[Chart]:
    """Of each exam and form the accuracy of every checkpoint, with chance and what each is worth without the question."""
    found = []
    for number_of_exam, exam in enumerate(comparison.exams):
        chance = _any(comparison, exam, "chance")
        for form, what in _FORMS.items():
            row = comparison.row(EXAM, exam, f"{form}_accuracy")
            if row is None:
                continue
            prior = comparison.row(EXAM, exam, f"{form}_answer_prior")
            labels = [label for label in comparison.labels if label in row.values][:_MOST_BARS]
            values = [
                Bar(label, row.values[label].value, looks[label], row.values[label].low, row.values[label].high)
                for label in labels
            ]
            alone = [prior.values[label].value if prior and label in prior.values else None for label in labels]
            references = [Reference("chance", chance.value)] if finite(chance) else []
            note = "" if len(row.values) <= _MOST_BARS else f"The first {_MOST_BARS} of {len(row.values)} checkpoints."
            if any(value is not None for value in alone):
                note = f"{note} Short black lines: the same checkpoint without the question.".strip()
            title = f"Exam {exam}, {what}"
            name = f"exam-{number_of_exam}-{form}"
            found.append(bars(name, title, values, "accuracy", note=note, references=references, marks=alone))
    return found


def exams_table(comparison: Comparison) -> Table | None:
    """A row for each metric and baseline of each exam; a column for each checkpoint, and one for its change and p-value."""
    rows = []
    units: dict[str, str] = {}
    for metric, unit in EXAM_UNITS.items():
        units[metric] = unit
        if metric.endswith("_perplexity"):
            units[metric.replace("_perplexity", "_margin")] = "  margin, nats"
    for suite, exam in [(suite, exam) for exam in comparison.exams for suite in (EXAM, EXAM_CLEAN)]:
        named = ""
        for metric, unit in units.items():
            row = comparison.row(suite, exam, metric)
            if row is None:
                continue
            n = next((each.n for each in row.values.values() if each.n is not None), None)
            what = exam if suite == EXAM else f"{exam}, without what is in training text"
            cells: list[str | Cell] = [Cell(what, plural(n, "question") if n is not None else "") if not named else ""]
            named = what
            cells.append(_said(metric, unit))
            if metric in COUNTS:
                for label in comparison.labels:
                    value = row.values.get(label)
                    cells += [number(value and value.value, 0), *([NONE] if label != comparison.base else [])]
                rows.append(cells)
                continue
            tests = comparison.row(suite, exam, metric + P_VALUE)
            for label in comparison.labels:
                cells.append(estimate_cell(row.values.get(label), number))
                if label != comparison.base:
                    cell = estimate_cell(row.changes.get(label), signed)
                    cells.append(Cell(cell.text, "; ".join(filter(None, (cell.small, _p(tests, label))))))
            rows.append(cells)
    head = ["exam", "measured", *checkpoint_head(comparison)]
    return as_table("Exams", head, rows, range(2, len(head))) if rows else None


def _said(metric: str, unit: str) -> str:
    """A metric in full: the table of a terminal leaves the form to the line above."""
    form = metric.partition("_")[0]
    return f"{form} form, {unit.strip()}" if unit.startswith(" ") and form in _FORMS else unit


def _p(tests, label: str) -> str:
    value = None if tests is None else tests.values.get(label)
    if value is None:
        return ""
    return "p < 0.0001" if value.value < 1e-4 else f"p = {value.value:.2g}"


def _any(comparison: Comparison, exam: str, metric: str) -> Estimate | None:
    row = comparison.row(EXAM, exam, metric)
    return None if row is None else next(iter(row.values.values()), None)
