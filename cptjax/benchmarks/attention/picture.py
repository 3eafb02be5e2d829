"""Our work over splash's as a picture: what the documents leave to do, and what each of the two spends on it."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from cptjax.benchmarks.attention.compare import PASSES, Work
from cptjax.reporting.palette import styles
from cptjax.reporting.svg import FAINT, INK, draw

_BAR = 0.8  # of the room between two cases that all bars of one take together
_NAMESPACE = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def draw_work(work: Sequence[Work]) -> str:
    """A standalone SVG: for each case and pass a bar for each generation, and what is allowed as a line above them."""
    cases = list(dict.fromkeys((each.case, each.backward) for each in work))
    generations = list(dict.fromkeys(each.generation for each in work))
    looks = styles(generations)
    width = _BAR / len(generations)

    def plot(axes: Axes) -> None:
        for each in work:
            if each.ratio is None:
                continue
            place = cases.index((each.case, each.backward))
            at = place + (generations.index(each.generation) + 0.5) * width - _BAR / 2
            label = each.generation if place == 0 else None
            axes.bar(at, each.ratio, 0.9 * width, label=label, **looks[each.generation].area())
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
            top = each.ratio - 0.012
            axes.text(at, top, f"{each.ratio:.2f}", ha="center", va="top", color=INK, fontsize=7.0, bbox=paper)
        allowed = {(each.case, each.backward): each for each in work}
        for place, case in enumerate(cases):
            label = "allowed" if place == 0 else None
            axes.plot([place - 0.45, place + 0.45], [allowed[case].allowed] * 2, color=INK, linewidth=1.2, label=label)
            label = "area of blocks of 512" if place == 0 else None
            share = allowed[case].areas.blocks
            axes.plot([place - 0.45, place + 0.45], [share] * 2, color=FAINT, linestyle=":", linewidth=1.2, label=label)
        axes.axhline(1, color=FAINT, linewidth=0.6)
        names = [f"{case}\n{PASSES[backward]}".replace(" of ", "\nof ") for case, backward in cases]
        axes.set_xticks(range(len(cases)), names, fontsize=7.5)
        axes.set_ylabel("our estimated work, of splash's")
        axes.set_ylim(0, 1.35)
        axes.legend(ncols=len(generations) + 2, loc="upper right", frameon=False, fontsize=7.5)

    label = "Estimated work of our attention kernels over splash attention's, by rows, pass and TPU generation"
    drawn = draw("attention", label, plot, width=9.0, height=3.6)
    return drawn.replace("<svg ", f'<svg {_NAMESPACE} style="background: white; font-family: sans-serif" ', 1) + "\n"
