"""A ratio of costs against the size: lines that are known, intervals that cover, refusals by name."""

import math

import numpy as np
import pytest
from scipy.stats import linregress
from scipy.stats import t as student

from cptjax.errors import ConfigurationError
from cptjax.scaling.ratio import fit_ratio

SIZES = (5.5e4, 1.4e5, 4.4e5, 1.5e6)


def test_a_power_of_the_size_is_found_exactly():
    line = fit_ratio({n: [0.3 * n**0.2] for n in SIZES})
    assert (line.exponent, line.factor, line.sizes) == (pytest.approx(0.2), pytest.approx(0.3), 4)
    assert line.high - line.low == pytest.approx(0, abs=1e-9)
    assert line.at(1e6) == pytest.approx(0.3 * 1e6**0.2)
    assert fit_ratio(dict.fromkeys(SIZES, [17.4])).exponent == pytest.approx(0)  # the null 1/p does not grow


def test_the_line_and_its_interval_are_those_of_the_means_of_the_logarithms():
    """scipy's regression through the sizes' geometric means, with Student's t of two degrees of freedom."""
    ratios = {5.5e4: [2.0, 3.0], 1.4e5: [2.5], 4.4e5: [4.0, 4.5, 3.0], 1.5e6: [7.0, 5.0]}
    line = fit_ratio(ratios)
    known = linregress(np.log(list(ratios)), [np.mean(np.log(each)) for each in ratios.values()])
    reach = known.stderr * student.ppf(0.975, 2)
    assert line.exponent == pytest.approx(known.slope) and math.log(line.factor) == pytest.approx(known.intercept)
    assert (line.low, line.high) == (pytest.approx(known.slope - reach), pytest.approx(known.slope + reach))


@pytest.mark.parametrize("between", [0.0, 0.3])
def test_the_interval_covers_the_true_exponent_nineteen_times_in_twenty(between):
    """Also where sizes stand off the line by more than their seeds do: counting every run once would then not cover."""
    generator, covered, studies = np.random.default_rng(0), 0, 1000
    for _ in range(studies):
        off = between * generator.standard_normal(len(SIZES))
        ratios = {
            n: np.exp(0.1 * math.log(n) + o + 0.2 * generator.standard_normal(3)).tolist()
            for n, o in zip(SIZES, off, strict=True)
        }
        line = fit_ratio(ratios)
        covered += line.low <= 0.1 <= line.high
    assert 0.93 * studies < covered < 0.97 * studies


def test_too_few_sizes_and_what_is_no_ratio_are_refused():
    with pytest.raises(ConfigurationError, match="at 2 of the 3 sizes"):
        fit_ratio({1e5: [2.0, 2.1, 2.2], 1e6: [3.0]})  # seeds are no sizes
    with pytest.raises(ConfigurationError, match="at 0 of the 3 sizes"):
        fit_ratio({})
    for wrong in ([], [0.0], [-1.0], [math.inf], [math.nan]):
        with pytest.raises(ConfigurationError, match="at 1e\\+06 parameters"):
            fit_ratio({1e5: [2.0], 3e5: [2.0], 1e6: wrong})
