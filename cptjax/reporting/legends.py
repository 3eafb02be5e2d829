"""Legends: samples of lines, markers and areas as small SVGs, which the page sets beside their labels."""

import dataclasses
import functools

from matplotlib.axes import Axes

from cptjax.reporting.palette import Style
from cptjax.reporting.svg import draw

_ANY = "any-key"  # the name that a sample is drawn under, before it gets that of its legend


@dataclasses.dataclass(frozen=True)
class Key:
    """A line of a chart's legend: a sample of the style, as SVG, and what it stands for."""

    sample: str
    label: str


def line_key(name: str, label: str, look: Style, markers: bool = True) -> Key:
    """A short piece of a line; `name` is unique in the page."""
    return Key(_sample("line" if markers else "plain line", look).replace(_ANY, name), label)


def point_key(name: str, label: str, look: Style) -> Key:
    """A marker alone."""
    return Key(_sample("point", look).replace(_ANY, name), label)


def area_key(name: str, label: str, look: Style) -> Key:
    """A filled piece of an area."""
    return Key(_sample("area", look).replace(_ANY, name), label)


@functools.cache
def _sample(kind: str, look: Style) -> str:
    def plot(axes: Axes) -> None:
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        if kind == "area":
            axes.fill_between([0, 1], 0.05, 0.95, **look.area())
        elif kind == "point":
            axes.plot([0.5], [0.5], **{**look.line(), "markersize": 7})
        else:
            axes.plot([0, 0.5, 1], [0.5] * 3, **look.line(kind == "line"), markevery=[1])

    svg = draw(_ANY, "", plot, width=0.42, height=0.17)
    return svg.replace('class="chart"', 'class="key"').replace('role="img" aria-label=""', 'aria-hidden="true"')
