"""Rows of evaluation.jsonl, and lines for a terminal, of the lm-evaluation-harness's numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.evaluation.bootstrap import Interval, paired_interval
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.result_row import result_row
from cptjax.evaluation.table import CHANGE

SUITE = "harness"
NORMAL = 1.96  # standard errors to either side: 95% of a normal distribution
VALUES = f"questions (this checkpoint only), {NORMAL} standard errors of the harness"
CHANGES = "questions (this checkpoint only)"


def task_rows(
    one: Compared, task: str, numbers: Mapping[str, Any], base: Mapping[str, Any] | None, seed: int
) -> list[dict[str, Any]]:
    """The rows of evaluation.jsonl for a task.

    Args:
        numbers: by metric `value`, the harness's standard `error`, over how many questions (`n`), and each one's share in it
            (`shares`), where there are such; base: the base's, None for the base itself.
        seed: of the bootstrap of changes.
    """
    rows = []
    for metric, of in numbers.items():
        error, value = of["error"], of["value"]
        low, high = (None, None) if error is None else (value - NORMAL * error, value + NORMAL * error)
        rows.append(_row(one, task, metric, value, (low, high), VALUES, of["n"]))
        theirs = (base or {}).get(metric)
        if theirs is not None and of["shares"] and theirs["shares"] and of["n"] == theirs["n"]:
            mine, others, ones = np.array(of["shares"]), np.array(theirs["shares"]), np.ones(of["n"])
            interval = paired_interval(mine, ones, others, ones, seed)
            rows.append(_row(one, task, metric + CHANGE, value - theirs["value"], interval, CHANGES, of["n"]))
    return rows


def _row(
    one: Compared, task: str, metric: str, value: float, interval: Interval, varies: str, n: int
) -> dict[str, Any]:
    return result_row(one, SUITE, task, metric, value, interval, varies, n)


def without_tasks(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of an evaluation.jsonl that are not of the harness."""
    return [row for row in rows if row["suite"] != SUITE]


def tasks_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for a terminal: each task's metrics with intervals, a column for each checkpoint.

    Args:
        rows: as evaluation.jsonl has them; others than the harness's are passed over.
    """
    rows = [row for row in rows if row["suite"] == SUITE]
    labels = list(dict.fromkeys(row["checkpoint"] for row in rows))
    cells = {(row["subset"], row["metric"], row["checkpoint"]): row for row in rows}
    width = max([22, *map(len, labels)])
    lines = [f"{'':40}" + "".join(f" {label:>{width}}" for label in labels)] if rows else []
    for task, metric in dict.fromkeys((row["subset"], row["metric"]) for row in rows):
        if metric.endswith(CHANGE):
            continue
        of = [cells.get((task, metric, label)) for label in labels]
        line = "".join(f" {'-' if row is None else _shown(row):>{width}}" for row in of)
        lines.append(f"{f'{task} {metric}':40}{line}")
    return lines


def _shown(row: Mapping[str, Any]) -> str:
    spread = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.4f}{spread}"
