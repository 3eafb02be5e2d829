"""Charts over tokens or steps: data in, SVG text out. The page writes titles, legends and notes, which wrap as they must."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from cptjax.counts import count
from cptjax.reporting.legends import Key, area_key, line_key
from cptjax.reporting.palette import Style
from cptjax.reporting.svg import FAINT, INK, draw

_BINS = 100  # of a trace
_LOG_RATIO = 30  # largest over smallest value of a trace from which its axis is logarithmic
_FEW_DECADES = 200  # up to this ratio a logarithmic axis has labels at 1, 2 and 5


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart with what the page writes around it. `note` says what a reader could not see in it."""

    title: str
    svg: str
    keys: tuple[Key, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart; values that are not finite are gaps. With `markers` every point is marked.

    `low` and `high`, where given, are the ends of each value's interval, drawn as a band.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: Style
    markers: bool = True
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of the x axis over which shares are constant: `shares` by name add up to 1."""

    name: str
    begin: float
    end: float
    shares: Mapping[str, float]


def lines(
    name: str,
    title: str,
    series: Sequence[Series],
    x_label: str,
    *,
    switches: Sequence[float] = (),
    x_max: float = 0.0,
    zero: bool = False,
    format_y: Callable[[float], str] = lambda value: f"{value:.4g}",
    note: str = "",
) -> Chart:
    """Lines over tokens (or steps); a legend where there is more than one.

    Args:
        name: unique in the page.
        switches: where thin vertical lines say that something changes.
        x_max: how far the x axis goes at least.
        zero: the y axis begins at 0.
    """

    def plot(axes: Axes) -> None:
        axes.grid(axis="y")
        for each in series:
            y = [value if math.isfinite(value) else math.nan for value in each.y]
            if each.low:
                axes.fill_between(each.x, each.low, each.high, color=each.style.fill, alpha=0.5, linewidth=0)
            axes.plot(each.x, y, **each.style.line(each.markers), clip_on=False)  # a marker on the edge is whole
        _y_axis(axes, [value for each in series for value in (*each.y, *each.low, *each.high)], zero, format_y)
        _x_axis(axes, x_label, switches, x_max)

    ends = "; ".join(f"{each.label}: {_first_to_last(each.y, format_y)}" for each in series)
    keys = [line_key(f"{name}-k{i}", each.label, each.style, each.markers) for i, each in enumerate(series)]
    svg = draw(name, f"{title}, over {x_label}. {ends}.", plot)
    return Chart(title, svg, tuple(keys) if len(keys) > 1 else (), _and_gaps(note, series))


def trace(
    name: str,
    title: str,
    series: Series,
    x_label: str,
    *,
    switches: Sequence[float] = (),
    zero: bool = False,
) -> Chart:
    """One number of every step. More than 100 steps are drawn as means of equal stretches within a band, lowest to highest.

    Where the values span more than a factor of 30 the axis is logarithmic, unless it begins at `zero`.
    """
    at, mean, low, high = _binned(np.asarray(series.x, float), np.asarray(series.y, float))
    finite = [value for value in series.y if math.isfinite(value)]
    logarithmic = not zero and bool(finite) and min(finite) > 0 and max(finite) / min(finite) > _LOG_RATIO

    def plot(axes: Axes) -> None:
        axes.grid(axis="y")
        if len(at) < len(series.x):
            axes.fill_between(at, low, high, color=series.style.fill, linewidth=0)
        axes.plot(at, mean, color=series.style.color, linewidth=1.1, marker="o" if len(at) == 1 else None)
        if logarithmic:
            axes.set_yscale("log")
            subs = (1.0, 2.0, 5.0) if max(finite) / min(finite) < _FEW_DECADES else (1.0,)
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=7))
            axes.yaxis.set_minor_locator(ticker.NullLocator())
            axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _short(value)))
        else:
            _y_axis(axes, series.y, zero, _short)
        _x_axis(axes, x_label, switches)

    said = []
    if len(at) < len(series.x):
        said.append(f"Line: mean of {stretch_length(len(series.x))} steps; band: their lowest and highest.")
    if logarithmic:
        said.append("The vertical axis is logarithmic.")
    label = f"{title}, over {x_label}: {_first_to_last(series.y, _short)}."
    return Chart(title, draw(name, label, plot), (), _and_gaps(" ".join(said), [series]))


def shares(
    name: str,
    title: str,
    spans: Sequence[Span],
    styles: Mapping[str, Style],
    x_label: str,
    *,
    read: float | None,
    note: str = "",
) -> Chart:
    """Stacked shares over stretches of the x axis; `read` marks how far the run got, where that is not the end."""
    names = list(dict.fromkeys(each for span in spans for each, share in span.shares.items() if share > 0))

    def plot(axes: Axes) -> None:
        for span in spans:
            height = 0.0
            for each in names:
                if share := span.shares.get(each, 0.0):
                    axes.fill_between([span.begin, span.end], height, height + share, **styles[each].area())
                    height += share
        for span in spans[1:]:
            axes.axvline(span.begin, color="white", linewidth=1.5)
        if read is not None:
            axes.axvline(read, color=INK, linewidth=1.2)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_locator(ticker.FixedLocator((0, 0.25, 0.5, 0.75, 1)))
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
        _x_axis(axes, x_label)
        axes.set_xlim(0, spans[-1].end)

    stages = "; ".join(
        f"{span.name}, {count(span.begin)} to {count(span.end)}: "
        + ", ".join(f"{each} {100 * share:.3g}%" for each, share in span.shares.items() if share > 0)
        for span in spans
    )
    keys = tuple(area_key(f"{name}-k{i}", each, styles[each]) for i, each in enumerate(names))
    return Chart(title, draw(name, f"{title}, over {x_label}. {stages}.", plot), keys, note)


def stretch_length(points: int) -> int:
    """Of how many points the means of a long trace are taken."""
    return max(1, math.ceil(points / _BINS))


def means(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The last x of each stretch, and the mean of its finite values; nan where it has none."""
    at, mean, _, _ = _binned(np.asarray(x, float), np.asarray(y, float))
    return at, mean


def _binned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[4, bins]: the last x of each of at most 100 equal stretches, and mean, lowest and highest of its finite values."""
    size = stretch_length(len(x))
    bins = []
    for begin in range(0, len(x), size):
        values = y[begin : begin + size]
        values = values[np.isfinite(values)]
        found = (values.mean(), values.min(), values.max()) if len(values) else (math.nan,) * 3
        bins.append((x[begin : begin + size][-1], *found))
    return np.array(bins).reshape(-1, 4).T


def _x_axis(axes: Axes, label: str, switches: Sequence[float] = (), most: float = 0.0) -> None:
    last = max(most, axes.dataLim.x1 if math.isfinite(axes.dataLim.x1) else 0.0)
    axes.set_xlim(0, 1.02 * last or 1.0)
    for x in switches:
        axes.axvline(x, color=FAINT, linewidth=0.7, linestyle=(0, (1, 2)))
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: count(value)))


def _y_axis(axes: Axes, values: Sequence[float], zero: bool, form: Callable[[float], str]) -> None:
    """Room around what is finite, or from 0; one value alone is not zoomed into."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_locator(ticker.NullLocator())
        return
    low, high = (0.0 if zero else min(finite)), max(finite)
    room = 0.07 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(0 if zero else low - room, high + room)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: form(value)))


def _short(value: float) -> str:
    return count(value) if abs(value) >= 1e3 else f"{value:.3g}"


def _first_to_last(values: Sequence[float], form: Callable[[float], str]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "nothing finite"
    return form(finite[0]) if len(finite) == 1 else f"{form(finite[0])} to {form(finite[-1])}"


def _and_gaps(note: str, series: Sequence[Series]) -> str:
    gaps = sum(not math.isfinite(value) for each in series for value in each.y)
    return f"{note} Not finite and left out: {gaps} of the values.".strip() if gaps else note
