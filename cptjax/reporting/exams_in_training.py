"""What a run's report shows of the exams that it answered as it trained: accuracy over tokens, and the baselines."""

import math
from collections.abc import Mapping
from typing import Any

from cptjax.reporting.palette import BASE, style
from cptjax.reporting.plots import Chart, Series, lines
from cptjax.reporting.run_content import RunContent
from cptjax.reporting.tables import Cell, Table, as_table
from cptjax.reporting.wording import NONE, number, plural

_FORMS = {"letter": "picking a letter", "cloze": "the likeliest choice"}


def exam_curves(run: RunContent, name: str, x: str, scale: float) -> list[Chart]:
    """A chart for each exam and form. `name`, `x` and `scale`: as of the run's other charts."""
    found = []
    for place, exam in enumerate(_names(run)):
        for form, what in _FORMS.items():
            accuracy = _series(run, exam, f"{form}_accuracy")
            if not accuracy:
                continue
            steps = [row["step"] * scale for row in accuracy]
            values, low, high = ([row[each] for row in accuracy] for each in ("value", "low", "high"))
            band = all(map(math.isfinite, (*low, *high)))
            series = [Series("accuracy", steps, values, style(0), low=low if band else (), high=high if band else ())]
            for metric, label, look in (
                (f"{form}_answer_prior", "without the question", style(1)),
                ("chance", "chance", BASE),
            ):
                if rows := _series(run, exam, metric):
                    at = [row["step"] * scale for row in rows]
                    series.append(Series(label, at, [row["value"] for row in rows], look, markers=False))
            note = f"{plural(accuracy[-1]['n'], 'question')}, the same each time. Band: 95% interval of the accuracy."
            title = f"Exam {exam}, {what}: accuracy"
            found.append(lines(f"{name}-exam-{place}-{form}", title, series, x, note=note))
    return found


def exams_as_trained_table(run: RunContent) -> Table | None:
    """A row for each exam and form: its accuracy at the first evaluation and at the last, and its baselines."""
    rows = []
    for exam in _names(run):
        for form, what in _FORMS.items():
            accuracy = _series(run, exam, f"{form}_accuracy")
            if not accuracy:
                continue
            last = {
                metric: _series(run, exam, metric) for metric in (f"{form}_answer_prior", "chance", "majority_letter")
            }
            baselines = [number(found[-1]["value"]) if found else NONE for found in last.values()]
            ends = [_cell(accuracy[0]), _cell(accuracy[-1])]
            rows.append([Cell(exam, plural(accuracy[-1]["n"], "question")), what, *ends, *baselines])
    head = ["exam", "form", "accuracy at first", "at last", "without the question", "chance", "majority letter"]
    return as_table("Exams as it trained", head, rows, range(2, len(head))) if rows else None


def _names(run: RunContent) -> list[str]:
    return list(dict.fromkeys(row["subset"] for row in run.exams))


def _series(run: RunContent, exam: str, metric: str) -> list[Mapping[str, Any]]:
    """The rows of a metric, by step."""
    found = [row for row in run.exams if (row["subset"], row["metric"]) == (exam, metric)]
    return sorted(found, key=lambda row: row["step"])


def _cell(row: Mapping[str, Any]) -> Cell:
    known = math.isfinite(row["low"]) and math.isfinite(row["high"])
    at = f"step {row['step']:,}"
    return Cell(number(row["value"]), f"[{number(row['low'])}, {number(row['high'])}], {at}" if known else at)
