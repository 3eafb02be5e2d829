"""Charts of estimates with their intervals: one number against another, and bars."""

import dataclasses
import math
from collections.abc import Sequence

from matplotlib import ticker
from matplotlib.axes import Axes

from cptjax.reporting.legends import line_key, point_key
from cptjax.reporting.palette import BASE, Style
from cptjax.reporting.plots import Chart
from cptjax.reporting.svg import FAINT, GRID, INK, draw, plain
from cptjax.reporting.wording import number, signed

_LONGEST_LABEL = 44  # characters over a bar


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar, or one coordinate of a point: a value and, where it is known, its interval."""

    label: str
    value: float
    style: Style
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Reference:
    """A value that all bars of a chart are seen beside."""

    label: str
    value: float


def points(
    name: str,
    title: str,
    pairs: Sequence[tuple[Bar, Bar]],
    x_label: str,
    y_label: str,
    *,
    origin: Bar,
    note: str = "",
) -> Chart:
    """A point for each pair of values (x, y), with crosses for intervals, beside an `origin` at (0, 0)."""
    drawn = [(x, y) for x, y in pairs if math.isfinite(x.value) and math.isfinite(y.value)]
    missing = [x.label for x, y in pairs if (x, y) not in drawn]

    def plot(axes: Axes) -> None:
        axes.axhline(0, color=GRID, linewidth=0.9)
        axes.axvline(0, color=GRID, linewidth=0.9)
        axes.plot([0], [0], linestyle="none", marker=origin.style.marker, color=origin.style.color, markersize=6)
        for x, y in drawn:
            look = {"marker": x.style.marker, "markersize": 7, "color": x.style.color, "elinewidth": 1, "capsize": 2}
            axes.errorbar([x.value], [y.value], xerr=_error(x), yerr=_error(y), linestyle="none", **look)
        axes.margins(0.14)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.MaxNLocator(5))
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.3g}".replace("-", "−")))

    said = "; ".join(f"{x.label}: {signed(x.value)} across, {signed(y.value)} up" for x, y in drawn)
    looks = [(origin.label, origin.style), *((x.label, x.style) for x, _ in drawn)]
    keys = tuple(point_key(f"{name}-k{i}", label, look) for i, (label, look) in enumerate(looks))
    note = f"{note} Not finite and left out: {', '.join(missing)}.".strip() if missing else note
    return Chart(title, draw(name, f"{title}. Across: {x_label}; up: {y_label}. {said}.", plot), keys, note)


def bars(
    name: str,
    title: str,
    values: Sequence[Bar],
    unit: str,
    *,
    note: str = "",
    references: Sequence[Reference] = (),
    marks: Sequence[float | None] = (),
) -> Chart:
    """Horizontal bars from zero, each under its label, with its interval and its number.

    Args:
        references: dotted lines across all bars; marks: for each bar a value that is marked on it, or None.
    """
    finite = [bar for bar in values if math.isfinite(bar.value)]
    across = [reference.value for reference in references] + [mark for mark in marks if mark is not None]
    reach = max([0.0, *(_end(bar) for bar in finite), *across]) or 1.0

    def plot(axes: Axes) -> None:
        for reference in references:
            axes.axvline(reference.value, zorder=3, **BASE.line(markers=False))
        for row, mark in enumerate(marks):
            if mark is not None:
                axes.plot([mark, mark], [row - 0.23, row + 0.23], color="black", linewidth=2.2, zorder=3)
        for row, bar in enumerate(values):
            axes.text(0, row - 0.27, _cut(bar.label), va="bottom", in_layout=False)  # the layout would make room for it
            if not math.isfinite(bar.value):
                axes.text(0, row, number(bar.value), va="center", color=FAINT, in_layout=False)
                continue
            error = {"elinewidth": 1, "capsize": 2, "ecolor": INK}
            axes.barh(row, bar.value, 0.46, **bar.style.area(), xerr=_error(bar), error_kw=error)
            beside = max([_end(bar), *(x for x in across if 0 < x - _end(bar) < 0.14 * reach)])  # on no line
            axes.text(beside + 0.02 * reach, row, number(bar.value), va="center", in_layout=False)
        axes.set_ylim(len(values) - 0.6, -0.75)
        axes.set_xlim(0, 1.18 * reach)
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
        axes.set_xlabel(unit)

    said = "; ".join(f"{one.label}: {number(one.value)}" for one in (*values, *references))
    keys = tuple(
        line_key(f"{name}-r{i}", f"{reference.label}, {number(reference.value)}", BASE, markers=False)
        for i, reference in enumerate(references)
    )
    height = 0.5 + 0.5 * max(2, len(values))
    return Chart(title, draw(name, f"{title}, {unit}. {said}.", plot, height=height), keys, note)


def _end(bar: Bar) -> float:
    """Where a bar with its interval ends."""
    return bar.value if bar.high is None or not math.isfinite(bar.high) else max(bar.value, bar.high)


def _error(bar: Bar) -> list[list[float]] | None:
    if bar.low is None or bar.high is None or not math.isfinite(bar.low) or not math.isfinite(bar.high):
        return None
    return [[max(0.0, bar.value - bar.low)], [max(0.0, bar.high - bar.value)]]


def _cut(label: str) -> str:
    label = plain(label)
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
