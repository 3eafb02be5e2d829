"""A matplotlib figure as SVG that can stand inside an HTML page, beside others: the same figure gives the same bytes.

Drawn through the object API, under settings of our own whatever matplotlibrc says; pyplot is never imported. Nothing in
the result points outside: no namespaces, no metadata, no date, and ids that begin with the chart's name.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FAINT, GRID = "#222222", "#666666", "#dddddd"
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: it can be selected, searched and read aloud
    "svg.hashsalt": "cptjax",
    "text.parse_math": False,  # a dollar in a label is a dollar
    "axes.unicode_minus": True,
    "font.size": 9.0,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "axes.labelsize": 9.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_FONT = re.compile(r"\s*font-family:[^;]*;?")
_REFERENCE = re.compile(r"(^#|url\(#)([^)]+)")  # in an href, and in a style
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_NUMERIC = ("d", "x", "y", "transform")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")


def draw(name: str, label: str, plot: Callable[[Axes], None], width: float = 4.2, height: float = 2.8) -> str:
    """The `<svg>` element of what `plot` draws on one pair of axes.

    Args:
        name: unique in the page (letters, digits, hyphens); the ids in the SVG begin with it.
        label: what the chart shows, in words, for those who do not see it.
        width, height: in inches; text is 9/72 of an inch.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has its own fonts
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        plot(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=_NO_METADATA)
    return _inlined(text.getvalue(), name, label)


def plain(text: str) -> str:
    """`text` on one line, without the control characters that no XML may hold."""
    return _CONTROL.sub(" ", text)


def _inlined(document: str, name: str, label: str) -> str:
    root = ElementTree.fromstring(document)
    box = root.get("viewBox")
    root.attrib.clear()
    root.attrib.update({"class": "chart", "viewBox": box, "role": "img", "aria-label": plain(label)})
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}style"):  # its rule would hold for the whole page; the page has one for charts
                parent.remove(child)
    used: dict[str, str] = {}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key, value in list(element.attrib.items()):
            if key == "id" or element is root:
                continue
            del element.attrib[key]
            element.set(key.rpartition("}")[2], _attribute(key, value, name, used))
    for element in root.iter():
        if "id" in element.attrib:
            if (identity := element.attrib.pop("id")) in used:
                element.set("id", used[identity])
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, name: str, used: dict[str, str]) -> str:
    """An attribute's value with new names for what it refers to, the page's font, and two decimals."""
    if key == "style":
        value = _FONT.sub("", value).strip()
    if key.endswith("href") or "url(#" in value:
        value = _REFERENCE.sub(lambda m: m[1] + used.setdefault(m[2], f"{name}-{len(used) + 1}"), value)
    if key in _NUMERIC and "scale" not in value:
        value = " ".join(_LONG_NUMBER.sub(_two_decimals, value).split())
    return value


def _two_decimals(match: re.Match) -> str:
    text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
