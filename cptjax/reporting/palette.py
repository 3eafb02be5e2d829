"""Colours, dashes, markers and hatches that stay apart for every kind of colour vision, and on paper without colour.

The colours are those of Okabe and Ito (Color Universal Design, 2008) without their yellow, which vanishes on white. Nothing
in a chart differs by colour alone.
"""

import dataclasses
from collections.abc import Iterable

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ((), (4.0, 1.6), (1.2, 1.4), (6.0, 1.6, 1.2, 1.6), (2.4, 1.2))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++")


@dataclasses.dataclass(frozen=True)
class Style:
    """How one thing looks in every chart of a page.

    Attributes:
        color: as #rrggbb.
        dash: lengths of strokes and gaps, in line widths; empty is a solid line.
        marker, hatch: as matplotlib names them.
    """

    color: str
    dash: tuple[float, ...]
    marker: str
    hatch: str

    @property
    def fill(self) -> str:
        """The colour mixed with white, for areas with something written or drawn on them."""
        parts = (int(self.color[i : i + 2], 16) for i in (1, 3, 5))
        return "#" + "".join(f"{round(255 - 0.45 * (255 - part)):02x}" for part in parts)

    def line(self, markers: bool = True) -> dict[str, object]:
        """As matplotlib's `plot` takes it."""
        marker = {"marker": self.marker, "markersize": 4.2} if markers else {}
        return {"color": self.color, "linestyle": (0, self.dash) if self.dash else "solid", "linewidth": 1.5, **marker}

    def area(self) -> dict[str, object]:
        """As matplotlib's `fill_between` and `barh` take it."""
        return {"facecolor": self.fill, "edgecolor": self.color, "hatch": self.hatch, "linewidth": 0}


BASE = Style("#333333", (1.2, 1.4), "o", "")  # what everything else is compared with


def style(index: int) -> Style:
    """The look of the thing number `index`; no two of the first 210 are alike in colour, dash and marker."""
    return Style(
        _COLORS[index % len(_COLORS)],
        _DASHES[index % len(_DASHES)],
        _MARKERS[index % len(_MARKERS)],
        _HATCHES[index % len(_HATCHES)],
    )


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A look for each name, in order; a name that comes again keeps its look."""
    return {name: style(index) for index, name in enumerate(dict.fromkeys(names))}
