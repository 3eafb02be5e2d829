"""The charts of a fitted law: its curves among the runs, predicted against measured, residuals, and budgets."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import ticker
from matplotlib.axes import Axes

from cptjax.counts import count
from cptjax.errors import ConfigurationError
from cptjax.reporting.legends import line_key, point_key
from cptjax.reporting.palette import BASE, style
from cptjax.reporting.plots import Chart
from cptjax.reporting.svg import GRID, INK, draw
from cptjax.scaling.allocation import best_size
from cptjax.scaling.bootstrap import PERCENTILES
from cptjax.scaling.checks import levels
from cptjax.scaling.fitting import Problem
from cptjax.scaling.law import Law

_LINES = 6  # levels that get a line of their own
_POINTS = 60  # of a line
_REFITS = 100  # that a band is made of


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What is drawn: a law with its values, the runs, which of them were held out, and the bootstrap's values.

    Attributes:
        predicted: of each run; of held-out runs by the fit that had not seen them.
        refits: parameters by name, a row each; empty where there was no bootstrap.
    """

    law: Law
    values: dict[str, float]
    problem: Problem
    held: Bool[np.ndarray, " runs"]
    predicted: Float[np.ndarray, " runs"]
    refits: Sequence[dict[str, float]]


def law_charts(fitted: Fitted) -> list[Chart]:
    """Every chart that the law has: isoFLOP curves and the frontier for laws of params and tokens alone."""
    found = [curves(fitted), agreement(fitted), residuals(fitted)]
    if set(fitted.law.columns) == {"params", "tokens"} and fitted.law.target == "loss":
        found += iso_flops(fitted)
    return [chart for chart in found if chart is not None]


def curves(fitted: Fitted) -> Chart:
    """The law over one column for each level of another, among the runs; a band of what the refits say."""
    columns = fitted.problem.columns
    many = [name for name in fitted.law.columns if len(levels(columns[name])) > 1] or list(fitted.law.columns[:1])
    across = "tokens" if "tokens" in many else many[0]
    by = next((name for name in many if name != across), None)
    x, groups = columns[across], _levels(columns[by]) if by else [None]
    positive = (x > 0).all()
    grid = np.geomspace(x.min(), x.max(), _POINTS) if positive else np.linspace(x.min(), x.max(), _POINTS)
    others = {name: float(np.median(levels(columns[name]))) for name in fitted.law.columns if name not in (across, by)}
    nearest = {name: _nearest(columns[name], value) for name, value in others.items()}
    drawn = []
    for number, level in enumerate(groups):
        which = np.ones(len(x), bool) if by is None else np.isclose(columns[by], level, rtol=1e-3)
        for name, value in nearest.items():
            which &= np.isclose(columns[name], value, rtol=1e-3)
        given = {**nearest, across: grid, **({} if by is None else {by: level})}
        low, high = _band(fitted, given)
        drawn.append((style(number), which, fitted.law.predict(fitted.values, given), low, high, level))

    def plot(axes: Axes) -> None:
        axes.grid(axis="y")
        for look, which, line, low, high, _ in drawn:
            if low is not None:
                axes.fill_between(grid, low, high, color=look.fill, linewidth=0, alpha=0.6)
            axes.plot(grid, line, **look.line(False))
            for held in (False, True):
                at = which & (fitted.held == held)
                face = "white" if held else look.color
                axes.plot(x[at], fitted.problem.loss[at], look.marker, color=look.color, markerfacecolor=face, ms=4.5)
        _scale(axes.set_xscale, axes.xaxis, positive)
        axes.set_xlabel(across)
        axes.set_ylabel(fitted.law.target)

    keys = [line_key(f"law-curves-k{n}", f"{by} {count(each[-1])}", each[0]) for n, each in enumerate(drawn) if by]
    note = "Open markers: held out." if fitted.held.any() else ""
    if nearest:
        note += " At " + ", ".join(f"{name} {count(value)}" for name, value in nearest.items()) + "."
    if fitted.refits:
        note += " Bands: 95% of the bootstrap's refits."
    title = f"The law over {across}"
    return Chart(title, draw("law-curves", f"{title}, by {by}.", plot), tuple(keys), note.strip())


def agreement(fitted: Fitted) -> Chart:
    """Predicted against measured, held-out runs marked."""
    measured, predicted = fitted.problem.loss, fitted.predicted

    def plot(axes: Axes) -> None:
        ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
        axes.plot(ends, ends, color=GRID, linewidth=1)
        for held, look in ((False, style(0)), (True, style(1))):
            at = fitted.held == held
            axes.plot(measured[at], predicted[at], look.marker, color=look.color, markersize=4.5)
        axes.set_xlabel(f"measured {fitted.law.target}")
        axes.set_ylabel("predicted")

    keys = (
        point_key("law-agreement-k0", "fitted", style(0)),
        *([point_key("law-agreement-k1", "held out: predicted without it", style(1))] if fitted.held.any() else []),
    )
    title = "Predicted against measured"
    return Chart(title, draw("law-agreement", f"{title}: {len(measured)} runs.", plot), keys)


def residuals(fitted: Fitted) -> Chart:
    """Relative residuals over the first column: what a wrong form looks like."""
    name = fitted.law.columns[0]
    x, share = fitted.problem.columns[name], 100 * (fitted.predicted / fitted.problem.loss - 1)

    def plot(axes: Axes) -> None:
        axes.axhline(0, color=GRID, linewidth=1)
        for held, look in ((False, style(0)), (True, style(1))):
            at = fitted.held == held
            axes.plot(x[at], share[at], look.marker, color=look.color, markersize=4.5)
        _scale(axes.set_xscale, axes.xaxis, (x > 0).all())
        axes.set_xlabel(name)
        axes.set_ylabel("predicted above measured, %")

    said = f"root mean square {np.sqrt(np.mean(share[~fitted.held] ** 2)):.2g}% of the fitted runs."
    return Chart("Residuals", draw("law-residuals", f"Residuals over {name}: {said}", plot), (), said)


def iso_flops(fitted: Fitted) -> list[Chart]:
    """The loss over sizes at equal compute, and the best size over compute; none where the law has no best size."""
    compute = 6 * fitted.problem.columns["params"] * fitted.problem.columns["tokens"]
    budgets = np.geomspace(compute.min(), compute.max(), 5)
    try:
        best = [best_size(fitted.law, fitted.values, budget) for budget in budgets]
    except ConfigurationError:
        return []
    sizes = [np.geomspace(each.params / 30, each.params * 30, _POINTS) for each in best]
    losses = [
        fitted.law.predict(fitted.values, {"params": size, "tokens": budget / 6 / size})
        for size, budget in zip(sizes, budgets, strict=True)
    ]
    optima = fitted.law.predict(
        fitted.values,
        {"params": np.array([each.params for each in best]), "tokens": np.array([each.tokens for each in best])},
    )

    def plot(axes: Axes) -> None:
        axes.grid(axis="y")
        for number, (size, loss) in enumerate(zip(sizes, losses, strict=True)):
            axes.plot(size, loss, **style(number).line(False))
        axes.plot([each.params for each in best], optima, "o-", color=INK, linewidth=0.8, markersize=4)
        _scale(axes.set_xscale, axes.xaxis, True)
        axes.set_xlabel("params")
        axes.set_ylabel("loss")

    def plot_frontier(axes: Axes) -> None:
        axes.grid(axis="y")
        axes.plot(compute, fitted.problem.loss, "o", color=BASE.color, markersize=3.5, alpha=0.5)
        axes.plot(budgets, optima, **style(0).line())
        _scale(axes.set_xscale, axes.xaxis, True, short=False)
        axes.set_xlabel("FLOPs, 6 N D")
        axes.set_ylabel("loss")

    keys = [
        line_key(f"law-iso-k{n}", f"{budget:.2g} FLOPs", style(n), False) for n, budget in enumerate(budgets.tolist())
    ]
    frontier_keys = (
        line_key("law-frontier-k0", "the best size for the compute", style(0)),
        point_key("law-frontier-k1", "runs", BASE),
    )
    said = "; ".join(
        f"{budget:.2g} FLOPs: {count(each.params)} parameters, {count(each.tokens)} tokens"
        for budget, each in zip(budgets, best, strict=True)
    )
    return [
        Chart("Loss at equal compute", draw("law-iso", f"Loss at equal compute. Best: {said}.", plot), tuple(keys)),
        Chart("The frontier", draw("law-frontier", f"Best loss over compute. {said}.", plot_frontier), frontier_keys),
    ]


def _levels(column: np.ndarray) -> list[float]:
    """At most six levels of a column, the smallest and the largest among them."""
    found = levels(column)
    if len(found) <= _LINES:
        return found.tolist()
    return found[np.linspace(0, len(found) - 1, _LINES).round().astype(int)].tolist()


def _nearest(column: np.ndarray, value: float) -> float:
    return float(column[np.argmin(np.abs(column - value))])


def _band(fitted: Fitted, given: dict) -> tuple[np.ndarray | None, np.ndarray | None]:
    if not fitted.refits:
        return None, None
    lines = [fitted.law.predict(values, given) for values in fitted.refits[:_REFITS]]
    low, high = np.percentile(lines, PERCENTILES, axis=0)
    return low, high


def _scale(set_scale, axis, logarithmic: bool, short: bool = True) -> None:
    if logarithmic:
        set_scale("log")
        axis.set_major_locator(ticker.LogLocator(numticks=6))
        axis.set_minor_locator(ticker.NullLocator())
        if short:
            axis.set_major_formatter(
                ticker.FuncFormatter(lambda value, _: count(value) if value >= 1 else f"{value:.3g}")
            )
        else:
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"1e{round(np.log10(value))}"))
