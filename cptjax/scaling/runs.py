"""The table of runs that a law is fitted to: a CSV file, or JSON lines, one run a row."""

import csv
import dataclasses
import json
from collections.abc import Mapping

import numpy as np
from etils import epath

from cptjax.errors import ConfigurationError

NUMBERS = (
    "params",
    "params_non_embedding",
    "tokens",
    "prior_tokens",
    "target_share",
    "unique_tokens",
    "flops",
    "loss",
    "prior_loss",
    "rate_sum",
    "rate_fall",
    "prior_rate_sum",
    "prior_rate_fall",
    "critical_share",
    "accuracy",
    "weight",
)
NAMES = ("seed", "trunk", "arm")
_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs, one a row of the file.

    Attributes:
        path: the file.
        lines: each run's line in it, counted from 1; int [runs].
        numbers: the columns of numbers that the file has, float64 [runs], NaN where a cell is empty.
        names: the columns `seed`, `trunk` and `arm` that the file has, as text [runs], "" where a cell is empty.
        annealed: whether each run's learning rate had come down, or None where the file does not say.
    """

    path: str
    lines: np.ndarray
    numbers: Mapping[str, np.ndarray]
    names: Mapping[str, np.ndarray]
    annealed: np.ndarray | None

    def __len__(self) -> int:
        return len(self.lines)

    def only(self, chosen: np.ndarray) -> "Runs":
        """Some of the runs, by index or mask."""
        return Runs(
            self.path,
            self.lines[chosen],
            {name: column[chosen] for name, column in self.numbers.items()},
            {name: column[chosen] for name, column in self.names.items()},
            None if self.annealed is None else self.annealed[chosen],
        )

    def at(self, chosen: np.ndarray) -> str:
        """Where some runs are, for a message: "runs.csv, line 3, 7 and 12 more"."""
        lines = [str(line) for line in self.lines[chosen]]
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        return f"{self.path}, line {', '.join(lines[:5])}{more}"


def read_runs(path: str, columns: Mapping[str, str] | None = None) -> Runs:
    """Reads a table of runs. Where it has `params` and `flops` but no `tokens`, tokens are flops / (6 params).

    Args:
        columns: what the file calls a column, where that is not our name: {"params": "Model Size"}.

    Raises:
        ConfigurationError: the file is missing, empty or not a table, or a cell is no number.
    """
    file = epath.Path(path).expanduser()
    if not file.is_file():
        raise ConfigurationError(f"RUNS = '{path}': there is no such file. It is a CSV or JSONL table, one run a row.")
    return runs_of(_csv_rows(file) if file.suffix.lower() == ".csv" else _json_rows(file), path, columns)


def runs_of(rows: list[tuple[int, dict]], path: str, columns: Mapping[str, str] | None = None) -> Runs:
    """The same of rows by their line; `path` says where they are from.

    Raises:
        ConfigurationError: there are none, or a cell is no number.
    """
    if not rows:
        raise ConfigurationError(
            f"RUNS = '{path}' has no runs: a CSV file begins with the columns' names, one run a row."
        )
    there = list(dict.fromkeys(name for _, row in rows for name in row))
    called = {name: name for name in (*NUMBERS, *NAMES, "annealed")} | dict(columns or {})
    for name, its in (columns or {}).items():
        if name not in (*NUMBERS, *NAMES, "annealed"):
            raise ConfigurationError(f"COLUMNS names {name!r}; there are {', '.join((*NUMBERS, *NAMES, 'annealed'))}.")
        if its not in there:
            raise ConfigurationError(f"COLUMNS: '{path}' has no column {its!r}; it has {', '.join(there)}.")

    def cells(name):
        return [(line, row.get(called[name])) for line, row in rows]

    numbers = {
        name: np.array([_number(cell, called[name], path, line) for line, cell in cells(name)])
        for name in NUMBERS
        if called[name] in there
    }
    if "tokens" not in numbers and {"params", "flops"} <= numbers.keys():
        numbers["tokens"] = numbers["flops"] / (6 * numbers["params"])
    names = {name: np.array([_text(cell) for _, cell in cells(name)]) for name in NAMES if called[name] in there}
    annealed = None
    if called["annealed"] in there:
        annealed = np.array([_truth(cell, called["annealed"], path, line) for line, cell in cells("annealed")])
    return Runs(str(path), np.array([line for line, _ in rows]), numbers, names, annealed)


def _csv_rows(file: epath.Path) -> list[tuple[int, dict]]:
    lines = csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines())
    rows = []
    for row in lines:
        if None in row or None in row.values():
            raise ConfigurationError(
                f"{file}, line {lines.line_num} has not as many cells as the first line has names."
            )
        rows.append((lines.line_num, row))
    return rows


def _json_rows(file: epath.Path) -> list[tuple[int, dict]]:
    rows = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(
                f"{file}, line {number} is not JSON ({error}); a CSV file's name ends in .csv."
            ) from None
        if not isinstance(row, dict):
            raise ConfigurationError(
                f"{file}, line {number} is not an object: one run is {{'params': ..., 'loss': ...}}."
            )
        rows.append((number, row))
    return rows


def _number(cell, name: str, path: str, line: int) -> float:
    if cell is None or cell == "":
        return float("nan")
    try:
        if isinstance(cell, bool):
            raise ValueError
        return float(cell)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{path}, line {line}: {name} is {cell!r}, which is no number.") from None


def _truth(cell, name: str, path: str, line: int) -> bool:
    said = _text(cell).lower()
    if said not in (*_TRUE, *_FALSE):
        raise ConfigurationError(f"{path}, line {line}: {name} is {cell!r}; it is true or false.")
    return said in _TRUE


def _text(cell) -> str:
    return "" if cell is None else str(cell).strip()
