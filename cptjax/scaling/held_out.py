"""What a law's word is worth: its error on the largest runs, which it has not seen, beside simpler guesses and the seeds' noise."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from cptjax.scaling.checks import levels
from cptjax.scaling.fitting import Problem, fit

_SAME = 0.01  # relative difference below which two runs are on one line of the grid


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A law's error on held-out runs; losses in nats per token.

    Attributes:
        axis: the column whose largest levels were held out; `above` the largest that was fitted.
        runs: how many were held out.
        relative_error: mean of |predicted - measured| / measured.
        reducible_error: the same of the loss above the fitted E; None for a law without one, or where a run is below it.
        root_mean_square: of predicted - measured.
        skill: 1 - the law's squared error / that of a straight line in log-log through the two largest fitted sizes of the
            same line of the grid; None where no held-out run has such a line. 0 is no better than the line.
        skill_runs: held-out runs that have one.
        predicted: of the held-out runs, in the table's order.
    """

    axis: str
    above: float
    runs: int
    relative_error: float
    reducible_error: float | None
    root_mean_square: float
    skill: float | None
    skill_runs: int
    predicted: tuple[float, ...]


def largest(column: Float[np.ndarray, " runs"], share: float) -> Bool[np.ndarray, " runs"]:
    """The runs at the largest levels of a column: `share` of its levels, and at least one."""
    values = levels(column)
    count = max(1, round(share * len(values)))
    return column >= values[-count] if count < len(values) else np.ones(len(column), bool)


def held_out_error(one: Problem, axis: str, held: Bool[np.ndarray, " runs"], starts: int, seed: int) -> HeldOut:
    """Fits the law without the runs in `held` and predicts them."""
    fitted = fit(dataclasses.replace(one, weights=np.where(held, 0.0, one.weights)), starts, seed)
    columns, measured = {name: column[held] for name, column in one.columns.items()}, one.loss[held]
    predicted = fitted.predict(columns)
    floor = fitted.values.get("E")
    reducible = None
    if floor is not None and (measured > floor).all():
        reducible = float(np.mean(np.abs(predicted - measured) / (measured - floor)))
    lines = naive(one, axis, held)
    known = np.isfinite(lines)
    skill = None
    if known.any():
        by_line = float(np.sum((lines - measured)[known] ** 2))
        skill = 1 - float(np.sum((predicted - measured)[known] ** 2)) / by_line if by_line > 0 else None
    return HeldOut(
        axis,
        float(one.columns[axis][~held].max()),
        int(held.sum()),
        float(np.mean(np.abs(predicted - measured) / measured)),
        reducible,
        float(np.sqrt(np.mean((predicted - measured) ** 2))),
        skill,
        int(known.sum()),
        tuple(predicted.tolist()),
    )


def naive(one: Problem, axis: str, held: Bool[np.ndarray, " runs"]) -> Float[np.ndarray, " held"]:
    """A straight line in log-log through the two largest levels of `axis` left, for each held-out run; NaN where there is none.

    On a run's line are the runs whose other columns are its own or, where there are not two such levels, whose other columns
    are the same multiples of `axis` (tokens per parameter). Replicates are averaged.
    """
    size = one.columns[axis]
    others = np.array([column for name, column in one.columns.items() if name != axis]).reshape(-1, len(size))
    guesses = []
    for index in np.flatnonzero(held):
        guess = np.nan
        for values in (others, others / size):
            target = values[:, index : index + 1]
            on_line = ~held & (np.abs(values - target) <= _SAME * np.abs(target)).all(axis=0)
            if on_line.any() and len(known := levels(size[on_line])) >= 2:
                means = [np.log(one.loss[on_line & np.isclose(size, level, rtol=_SAME)]).mean() for level in known[-2:]]
                slope = (means[1] - means[0]) / np.log(known[-1] / known[-2])
                guess = np.exp(means[1] + slope * np.log(size[index] / known[-1]))
                break
        guesses.append(guess)
    return np.array(guesses)


def seed_deviation(one: Problem) -> float | None:
    """The standard deviation of the loss among runs that differ in nothing the law reads, pooled; None without such runs."""
    groups: dict[tuple[float, ...], list[float]] = {}
    for index, loss in enumerate(one.loss):
        key = tuple(float(f"{column[index]:.6g}") for column in one.columns.values())
        groups.setdefault(key, []).append(float(loss))
    freedom = sum(len(group) - 1 for group in groups.values())
    if freedom == 0:
        return None
    return float(np.sqrt(sum(np.var(group) * len(group) for group in groups.values()) / freedom))
