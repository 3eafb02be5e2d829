"""A row of evaluation.jsonl."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cptjax.evaluation.bootstrap import Interval


class Measured(Protocol):
    """What a row says of the checkpoint it is about."""

    label: str
    step: int | None
    tokens: int | None


def result_row(
    found: Measured, suite: str, subset: str, metric: str, value: float, interval: Interval, varies: str, n: int
) -> dict[str, Any]:
    """One number, its interval, and what varies in it; `n` is over how many."""
    return {
        "checkpoint": found.label,
        "step": found.step,
        "tokens": found.tokens,
        "suite": suite,
        "subset": subset,
        "metric": metric,
        "value": value,
        "low": interval[0],
        "high": interval[1],
        "interval": varies,
        "n": n,
    }


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it, which knows no nan and no infinity: they are strings, as in metrics.jsonl."""
    return {name: str(x) if isinstance(x, float) and not math.isfinite(x) else x for name, x in row.items()}


def as_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as evaluation.jsonl holds them."""
    return "".join(json.dumps(as_json(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
