"""What a study costs, told before anything starts: FLOPs and hours of every arm at every size, learning rates' search included."""

import dataclasses
from collections.abc import Mapping, Sequence

from etils import epath

from cptjax.counts import count
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.models.flops import flops_per_token
from cptjax.models.model import parameter_counts
from cptjax.reporting.progress import duration
from cptjax.studies.grid import Grid
from cptjax.studies.grid_steps import CONCLUSION, bracket_point

VERDICT = "verdict.json"  # of the conclusion: what the study found, and its measured speeds and deviations


@dataclasses.dataclass(frozen=True)
class Cost:
    """Runs of one kind at one size.

    Attributes:
        what: the arm, or "rates of" it; runs: how many; tokens: all that they read together.
        flops: counted in training them (models/flops.py); six_nd: 6 N D with all of N, embeddings included; seconds: None where
            no speed is known.
    """

    what: str
    size: str
    runs: int
    tokens: int
    flops: float
    six_nd: float
    seconds: float | None


def costs(grid: Grid) -> list[Cost]:
    """Of every arm at every size, the search for learning rates first. Widening a bracket is not foreseen in it."""
    speeds = speeds_of(grid)
    found = []
    for arm in grid.arms:
        if arm.searches:
            for size in grid.rates_sizes(arm):
                point = bracket_point(grid, arm, size)
                found.append(_cost(grid, f"rates of {arm.name}", size, [point.total] * len(arm.learning_rates), speeds))
    points = grid.points()
    for arm in grid.arms:
        for size in grid.sizes_of(arm):
            mine = [p.total for p in points if p.arm.name == arm.name and p.size == str(size)]
            found.append(_cost(grid, arm.name, size, mine, speeds))
    return found


def speeds_of(grid: Grid) -> dict[str, float]:
    """Tokens per second by size, where it is known.

    Raises:
        ConfigurationError: the speed is given as something else, or names a folder that holds no conclusion.
    """
    speed = grid.speed
    if speed is None:
        return {}
    if isinstance(speed, Mapping):
        return {str(size): float(each) for size, each in speed.items()}
    if isinstance(speed, str):
        return read_verdict(speed, "Grid.speed")["tokens_per_second"]
    return {
        str(size): float(speed) / flops_per_token(grid.model(size), grid.sequence_length).training
        for size in (*grid.sizes, *grid.rates_at)
    }


def read_verdict(study: str, what: str) -> Mapping:
    """What the conclusion of a finished study wrote.

    Raises:
        ConfigurationError: there is none.
    """
    folder = epath.Path(study).expanduser()
    path = next((each for each in (folder / CONCLUSION / VERDICT, folder / VERDICT) if each.exists()), None)
    if path is None:
        raise ConfigurationError(f"{what} = {study!r}: no finished study is there (no {CONCLUSION}/{VERDICT}).")
    return read_json(path)


def describe_costs(grid: Grid) -> list[str]:
    """The table that is printed before anything starts."""
    rows = costs(grid)
    lines = [
        f"{'cost of':28} {'size':>5} {'runs':>5} {'tokens':>8} {'FLOPs':>8} {'6ND':>8} {'time':>9}",
        *(_line(row.what, row.size, row) for row in rows),
        _line("in all", "", total(rows)),
        "  FLOPs: counted matrix products, LM head and causal attention included; 6ND with N all parameters, embeddings included.",
    ]
    if any(row.seconds is None for row in rows):
        lines.append(
            "  Time is not told where no speed is known: SPEED, tokens/s by size or the folder of a study that has run."
        )
    return lines


def total(rows: Sequence[Cost]) -> Cost:
    """All of them together."""
    seconds = None if any(row.seconds is None for row in rows) else sum(row.seconds for row in rows)
    return Cost(
        "in all",
        "",
        sum(row.runs for row in rows),
        sum(row.tokens for row in rows),
        sum(row.flops for row in rows),
        sum(row.six_nd for row in rows),
        seconds,
    )


def _cost(grid: Grid, what: str, size: str | float, tokens: Sequence[int], speeds: Mapping[str, float]) -> Cost:
    model = grid.model(size)
    read = sum(tokens)
    per_token = flops_per_token(model, grid.sequence_length).training
    speed = speeds.get(str(size))
    seconds = read / speed if speed else None
    return Cost(
        what, str(size), len(tokens), read, per_token * read, 6.0 * parameter_counts(model).total * read, seconds
    )


def _line(what: str, size: str, row: Cost) -> str:
    time = "-" if row.seconds is None else duration(row.seconds)
    return f"{what:28} {size:>5} {row.runs:>5} {count(row.tokens):>8} {count(row.flops):>8} {count(row.six_nd):>8} {time:>9}"
