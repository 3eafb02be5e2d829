"""What selections save in a study's table: gains and charges that are known."""

import math
from dataclasses import replace

import pytest
from scipy.stats import ttest_1samp
from selection_tables import BUDGETS, PARAMS, selection_table

from cptjax.errors import ConfigurationError
from cptjax.studies.selection_charges import Charge
from cptjax.studies.selection_gain import selection_gains

FREE = Charge()
LARGEST = BUDGETS[-1] * PARAMS


def only(rows, charge=FREE, baseline=FREE, text="held_out", arm="d4"):
    (found,) = selection_gains(rows, "random", arm, text, charge, baseline)
    return found


def test_a_selection_that_takes_four_fifths_saves_a_fifth():
    """Charged, a tenth of the baseline's FLOPs, half of it is left; its equal part, a hundredth, leaves 0.19."""
    charge = Charge(("d4",), 0.06 * LARGEST, 0.01 * LARGEST, 0.03 * LARGEST, 10, 10, 0.01 * LARGEST)
    found = only(selection_table({"d4": 1.25}), charge)
    assert found.flops == LARGEST and found.marginal.by_seed == {seed: pytest.approx(0.2) for seed in range(3)}
    for gain, value in ((found.marginal, 0.2), (found.charged, 0.1), (found.shared, 0.19)):
        assert (gain.mean, gain.low, gain.high) == tuple(pytest.approx(value) for _ in range(3)) and not gain.bounds
    for even in found.break_even.values():
        assert even.cost == pytest.approx(0.5 * LARGEST) and not even.bound  # a tenth over a fifth


def test_the_baselines_own_selection_is_charged_too():
    charge, theirs = Charge(embedding=0.1 * LARGEST), Charge(embedding=0.25 * LARGEST)
    found = only(selection_table({"d4": 1.25}), charge, theirs)
    assert found.charged.mean == pytest.approx(1 - 0.9 / 1.25) and found.marginal.mean == pytest.approx(0.2)
    assert {(even.cost, even.bound) for even in found.break_even.values()} == {(BUDGETS[0] * PARAMS, True)}


def test_a_charge_beyond_what_is_saved_never_pays():
    found = only(selection_table({"d4": 1.25}), Charge(embedding=0.5 * LARGEST))
    assert found.charged.mean == pytest.approx(-0.3)
    assert [even.cost for even in found.break_even.values()] == [None] * 3


def test_the_interval_is_students_over_seeds():
    found = only(selection_table({"d4": 1.25}, scatter=0.05))
    each = [1 - 1 / (1.25 * math.exp(0.05 * (seed - 1))) for seed in range(3)]
    known = ttest_1samp(each, 0).confidence_interval(0.95)
    assert list(found.marginal.by_seed.values()) == pytest.approx(each)
    assert (found.marginal.low, found.marginal.high) == (pytest.approx(known.low), pytest.approx(known.high))
    alone = only(selection_table({"d4": 1.25}, seeds=1)).marginal
    assert (alone.mean, alone.low) == (None, None) and alone.by_seed == {0: pytest.approx(0.2)}


@pytest.mark.parametrize("factor, bound", [(20.0, ("at least", 0.75)), (0.2, ("at most", -3.0))])
def test_where_curves_do_not_overlap_there_is_a_bound(factor, bound):
    """20: its smallest run, a quarter of the largest, is better. 0.2: its largest is worse than the baseline's smallest."""
    found = only(selection_table({"d4": factor}), Charge(embedding=0.1 * LARGEST))
    assert not found.marginal.by_seed and set(found.marginal.bounds.values()) == {bound}
    less = 0.1 if factor > 1 else 0.4  # the charge is a tenth of the largest run, and four tenths of the smallest
    assert list(found.charged.bounds.values()) == [(bound[0], pytest.approx(bound[1] - less))] * 3
    assert found.charged.mean is None
    assert {even.cost is None for even in found.break_even.values()} == {factor < 1}


def test_a_selection_that_never_gets_there_is_read_at_its_own_lowest_loss():
    """Of half the worth: after 4,000 it is where the baseline was after 2,000. Charged, a tenth of 4,000 comes on top."""
    found = only(selection_table({"d4": 0.5}), Charge(embedding=0.1 * LARGEST))
    assert found.marginal.mean == pytest.approx(-1.0) and found.charged.mean == pytest.approx(-1.2)


def test_each_text_has_gains_of_its_own_and_what_was_not_measured_is_refused():
    rows = [
        {**row, "bits_per_byte_near": 7 - row["bits_per_byte"]} for row in selection_table({"d4": 1.25, "control": 1.0})
    ]
    assert only(rows, arm="control").marginal.mean == pytest.approx(0.0)
    near = only(rows, text="near").marginal  # there selection is the worse the longer it reads
    assert set(near.bounds.values()) == {("at least", 0.75)}
    with pytest.raises(ConfigurationError, match="did not measure 'far'; it has held_out, near"):
        only(rows, text="far")
    with pytest.raises(ConfigurationError, match="is not annealed"):
        only([{**row, "annealed": False} for row in rows])


def test_every_size_is_told_apart():
    rows = selection_table({"d4": 1.25}) + selection_table({"d4": 2.0}, size="B", params=3 * PARAMS)
    found = selection_gains(rows, "random", "d4", "held_out", replace(FREE, embedding=0.1 * LARGEST), FREE)
    assert [(each.size, each.flops) for each in found] == [("A", LARGEST), ("B", 3 * LARGEST)]
    assert [each.charged.mean for each in found] == pytest.approx([0.1, 0.5 - 0.1 / 3])
