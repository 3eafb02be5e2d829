"""The embeddings of a selection in two dimensions: where in the corpus what was dropped lies."""

import numpy as np
from matplotlib.axes import Axes

from cptjax.reporting.legends import point_key
from cptjax.reporting.palette import style
from cptjax.reporting.plots import Chart
from cptjax.reporting.svg import draw
from cptjax.selection.selected import Evidence, Selection

POINTS = 1500  # drawn of all


def selection_map(name: str, evidence: Evidence, selection: Selection) -> Chart:
    """The two directions in which the embeddings (of length 1) differ most, an even sample of units, by what became of them."""
    count = len(evidence.units)
    taken = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
    points = np.asarray(evidence.points[taken], np.float32)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    at, shares = two_directions(points)
    fates = selection.reason[evidence.units[taken]]
    kinds = [(-1, "kept"), *((n, reason.stage.replace("_", " ")) for n, reason in enumerate(selection.reasons))]
    kinds = [(fate, label) for fate, label in kinds if (fates == fate).any()]

    def plot(axes: Axes) -> None:
        for n, (fate, _) in enumerate(kinds):
            look = style(n)
            here = fates == fate
            axes.plot(
                *at[here].T, linestyle="none", marker=look.marker, markersize=2.2, color=look.color, markeredgewidth=0
            )
        axes.set_xlabel(f"first direction, {shares[0]:.0%} of the variance")
        axes.set_ylabel(f"second, {shares[1]:.0%}")
        axes.set_xticks([])
        axes.set_yticks([])

    counts = ", ".join(f"{label}: {int((fates == fate).sum()):,}" for fate, label in kinds)
    svg = draw(name, f"{evidence.title}: {len(taken):,} units in two dimensions; {counts}.", plot, 6.0, 4.2)
    keys = tuple(point_key(f"{name}-k{n}", label, style(n)) for n, (_, label) in enumerate(kinds))
    note = f"Principal components of the embeddings of {len(taken):,} of {count:,} units. Near here need not be near there."
    return Chart(f"{evidence.title}: the embeddings in two dimensions", svg, keys, note)


def two_directions(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float [points, 2]: their first two principal components; and which share of the variance lies in either."""
    centered = points - points.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centered, full_matrices=False)
    largest = np.abs(directions[:2]).argmax(axis=1)  # a direction's sign is nobody's: its largest number is positive
    directions = directions[:2] * np.sign(np.take_along_axis(directions[:2], largest[:, None], axis=1))
    found = centered @ directions.T
    shares = lengths[:2] ** 2 / max(float((lengths**2).sum()), 1e-30)
    missing = 2 - found.shape[1]
    return np.pad(found, ((0, 0), (0, missing))), np.pad(shares, (0, missing))
