"""What a curve saves over another: answers worked by hand, and those of power laws that are known."""

import math

import pytest

from cptjax.errors import ConfigurationError
from cptjax.evaluation.curves import (
    BreakEven,
    FlopsSaved,
    Point,
    break_even,
    cost_to_reach,
    efficiency_gain,
    flops_saved,
    specialized_efficiency,
    transferred_tokens,
)


def curve(*pairs):
    return [Point(cost, loss) for cost, loss in pairs]


SCRATCH = curve((100, 4.0), (400, 3.0), (1600, 2.5))  # every doubling: 0.5 less, then 0.25


def test_between_points_the_loss_is_linear_in_the_logarithm_of_the_cost():
    assert cost_to_reach(SCRATCH, 3.5) == pytest.approx(200)  # halfway between 100 and 400
    assert cost_to_reach(SCRATCH, 2.75) == pytest.approx(800)
    assert cost_to_reach(list(reversed(SCRATCH)), 3.0) == pytest.approx(400)
    assert cost_to_reach(SCRATCH, 4.0) == 100
    assert cost_to_reach(SCRATCH, 4.5) is None  # earlier than the first point, nobody knows when
    assert cost_to_reach(SCRATCH, 2.4) is None
    bumpy = curve((1, 4.0), (2, 3.0), (4, 3.5), (8, 2.0))
    assert cost_to_reach(bumpy, 3.0) == pytest.approx(2)  # the first time


def test_transferred_tokens_and_flops_saved_by_hand():
    """At a loss of 2.75 scratch takes 800: continued at 300, the base was worth 500; saved are 5/8, with 400 of its own 1/8."""
    assert transferred_tokens(SCRATCH, Point(300, 2.75)) == pytest.approx(500)
    saved = flops_saved(SCRATCH, Point(300, 2.75), source_flops=400)
    assert (saved.marginal, saved.with_source) == (pytest.approx(0.625), pytest.approx(0.125))
    assert flops_saved(SCRATCH, Point(1600, 3.0), 0) == FlopsSaved(pytest.approx(-3.0), pytest.approx(-3.0))
    assert transferred_tokens(SCRATCH, Point(300, 2.0)) is None and flops_saved(SCRATCH, Point(300, 2.0), 1) is None


def test_the_published_frontiers_save_what_the_paper_says():
    """L = 33.69907 C^-0.0579 from scratch, 31.9594 C^-0.0575 continued (arXiv 2407.02118): 47% at 1e18 to 43% at 1e22."""
    costs = [10.0 ** (17 + i / 4) for i in range(30)]
    scratch = [Point(c, 33.69907 * c**-0.0579) for c in costs]
    for loss_at, expected in ((1e18, 0.47), (1e22, 0.43)):
        loss = 33.69907 * loss_at**-0.0579
        continued = Point((31.9594 / loss) ** (1 / 0.0575), loss)
        assert flops_saved(scratch, continued, 0).marginal == pytest.approx(expected, abs=0.01)


def test_efficiency_gain_is_the_share_of_steps_saved():
    baseline, selected = curve((10, 4.0), (1000, 2.0)), curve((10, 4.0), (640, 2.0), (1000, 1.9))
    assert efficiency_gain(baseline, selected) == pytest.approx(0.36)
    assert efficiency_gain(baseline, baseline) == pytest.approx(0.0)
    assert efficiency_gain(baseline, curve((10, 4.0), (1000, 2.1))) is None


def test_a_specialist_that_only_skips_other_text_is_at_its_null():
    """The domain is a fifth of the general text, and its other text teaches nothing: the general run takes 5 times as much."""

    def loss(domain_tokens):
        return 2 + 3 * domain_tokens**-0.3

    general = [Point(c, loss(c / 5)) for c in (50, 500, 5000, 50_000)]
    special = [Point(c, loss(c)) for c in (10, 100, 1000, 10_000)]
    found = specialized_efficiency(general, special, 0.2)
    assert found.null == pytest.approx(5) and found.at_best == pytest.approx(5)
    assert found.to_general_best == pytest.approx(5)
    overfits = [*special[:3], Point(10_000, 2.5)]  # its best is at 1,000: at_best alone would praise it
    found = specialized_efficiency(general, overfits, 0.2)
    assert found.at_best == pytest.approx(50) and found.to_general_best is None


@pytest.mark.parametrize(
    "points, message",
    [
        ([], "no points"),
        ([Point(1, 2.0), Point(2, 1.0, annealed=False)], "the point at cost 2 is not annealed"),
        ([Point(1, 2.0), Point(1, 1.9)], "two points of the same cost"),
        ([Point(0, 2.0)], "a cost of 0"),
        ([Point(1, math.nan)], "a loss of nan"),
    ],
)
def test_curves_that_cannot_be_compared_are_refused(points, message):
    with pytest.raises(ConfigurationError, match=message):
        cost_to_reach(points, 1.0)
    with pytest.raises(ConfigurationError, match="at most 1"):
        specialized_efficiency(SCRATCH, SCRATCH, 1.5)


def test_an_unannealed_continuation_is_refused():
    with pytest.raises(ConfigurationError, match="not annealed"):
        transferred_tokens(SCRATCH, Point(300, 2.75, annealed=False))


def line(factor, costs=(100, 200, 400, 800)):
    """4 - ln(cost x factor / 100): a curve that takes 1 / factor of the cost of another one's loss."""
    return [Point(cost, 4 - math.log(cost * factor / 100)) for cost in costs]


@pytest.mark.parametrize("factor, charge", [(1.25, 80), (1.6, 60), (2.0, 399)])
def test_a_charge_is_saved_from_charge_over_gain_on(factor, charge):
    """Selected data that takes 1 / f of the cost saves C (1 - 1 / f): a charge s pays from C = s / (1 - 1 / f) on."""
    found = break_even(line(1.0), line(factor), charge)
    assert found.cost == pytest.approx(charge / (1 - 1 / factor)) and not found.bound
    assert found.saved == pytest.approx(800 * (1 - 1 / factor))


def test_a_charge_that_is_not_saved_within_the_budgets_breaks_even_nowhere():
    assert break_even(line(1.0), line(1.25), 170) == BreakEven(None, False, pytest.approx(160))
    assert break_even(line(1.0), line(0.8), 0) == BreakEven(None, False, None)  # it never is as good as the largest run
    crossing = curve(
        (100, 3.9), (800, 4 - math.log(8) + 0.1)
    )  # ahead at first, behind at the end: what pays once is no answer
    assert break_even(line(1.0), crossing, 0).cost is None


def test_what_pays_at_the_smallest_run_pays_from_there_or_before():
    assert break_even(line(1.0), line(1.25), 0) == BreakEven(100, True, pytest.approx(160))


def test_where_the_selected_smallest_run_is_already_as_good_its_cost_is_taken():
    """Selected data of 100 has the losses that the baseline has up to 125, or up to 800: it took no more than 100, perhaps less."""
    assert break_even(line(1.0), line(1.25), 10) == BreakEven(pytest.approx(110), True, pytest.approx(160))
    assert break_even(line(1.0), line(8.0), 250) == BreakEven(pytest.approx(350), True, pytest.approx(700))
    assert break_even(line(1.0), line(8.0), 701).cost is None
