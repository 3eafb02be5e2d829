"""How many things there are of each size, as a drawing."""

from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from cptjax.counts import count
from cptjax.reporting.palette import Style
from cptjax.reporting.plots import Chart
from cptjax.reporting.svg import draw


def histogram(
    name: str, title: str, edges: Sequence[int], counts: Sequence[int], look: Style, x_label: str, *, note: str = ""
) -> Chart:
    """Columns between edges on a logarithmic axis.

    Args:
        name: unique in the page.
        edges: ascending, one more than counts; what is below 1 is drawn at 1.
    """
    at = np.log2(np.maximum(1, np.asarray(edges, float)))

    def plot(axes: Axes) -> None:
        axes.grid(axis="y")
        axes.bar(at[:-1], counts, np.diff(at), align="edge", **look.area())
        axes.set_xlim(at[0], at[-1])
        axes.set_ylim(0, 1.05 * max(counts))
        axes.set_xlabel(x_label)
        every = max(1, int(np.ceil((at[-1] - at[0]) / 6)))
        powers = [power for power in range(int(np.ceil(at[0])), int(at[-1]) + 1) if power % every == 0]
        axes.xaxis.set_major_locator(ticker.FixedLocator(powers or [at[0]]))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda power, _: f"{round(2**power):,}"))
        axes.yaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: count(value)))

    most = int(np.argmax(counts))
    span = "{:,} to below {:,}".format
    said = f"{sum(counts):,} from {span(edges[0], edges[-1])}; most, {counts[most]:,}, from {span(*edges[most : most + 2])}"
    return Chart(title, draw(name, f"{title}, by {x_label}. {said}.", plot), (), note)
