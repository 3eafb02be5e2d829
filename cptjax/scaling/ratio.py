"""How a ratio of costs goes with the size of the model: ratio = factor * N ** exponent, a line through log-log means."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from cptjax.errors import ConfigurationError

FEWEST_SIZES = 3  # a line has two parameters, and wants one more level than that (PROTOCOL.md 13)
COVERAGE = 0.95


@dataclasses.dataclass(frozen=True)
class RatioLine:
    """The fitted line.

    Attributes:
        exponent: by how much ln(ratio) rises when ln N rises by one; above 0 the ratio grows with the size. A null that is the
            same at every size, as 1/p is, has 0.
        low, high: its 95% interval. What varies: how sizes stand off the line, each the mean of its runs, be it by seeds or because
            the ratio is no power of N; Student's t of sizes - 2 degrees of freedom.
        factor: the ratio at N = 1, which is no size; it only draws the line.
        sizes: how many.
    """

    exponent: float
    low: float
    high: float
    factor: float
    sizes: int

    def at(self, params: float) -> float:
        """The line's ratio at a size."""
        return self.factor * params**self.exponent


def fit_ratio(ratios: Mapping[float, Sequence[float]]) -> RatioLine:
    """Least squares of ln(ratio) on ln N; each size counts once, with the mean of the logarithms of its ratios.

    Not each run once: runs of one size share what makes it stand off the line, and would make the interval too narrow.

    Args:
        ratios: by number of parameters the ratio of each of its runs, all above 0.

    Raises:
        ConfigurationError: fewer than three sizes, or a size or ratio that is not above 0 and finite.
    """
    for params, its in ratios.items():
        if not its or not all(math.isfinite(each) and each > 0 for each in (params, *its)):
            raise ConfigurationError(
                f"the ratios at {params:g} parameters are {list(its)}; sizes and ratios are above 0 and finite, and a size has one"
                " at least."
            )
    if len(ratios) < FEWEST_SIZES:
        raise ConfigurationError(
            f"the ratio is known at {len(ratios)} of the {FEWEST_SIZES} sizes that a line wants to tell its own error"
            " (PROTOCOL.md 13: one more level than parameters).\n"
            "  Run more sizes, or budgets between which the arms' losses overlap."
        )
    sizes = np.log(np.array(list(ratios), float))
    values = np.array([np.mean(np.log(its)) for its in ratios.values()])
    centred = sizes - sizes.mean()
    exponent = float(centred @ values / (centred @ centred))
    at_one = float(values.mean() - exponent * sizes.mean())
    residual = values - (at_one + exponent * sizes)
    freedom = len(sizes) - 2
    error = math.sqrt(float(residual @ residual) / freedom / float(centred @ centred))
    reach = error * float(student.ppf((1 + COVERAGE) / 2, freedom))
    return RatioLine(exponent, exponent - reach, exponent + reach, math.exp(at_one), len(sizes))
