"""Arms of a study at equal loss: tables whose ratio and exchange rates are known."""

import math

import pytest
from scipy.stats import ttest_1samp
from study_tables import SIZES, table

from cptjax.errors import ConfigurationError
from cptjax.studies.equal_loss import cost_ratios, forgetting
from cptjax.studies.intervals import mean_interval

SHARE = 0.4  # of the corpus: 1/p is 2.5


def test_the_ratio_of_every_size_is_that_of_the_table():
    found = cost_ratios(table(lambda n: 2 * (n / 1e6) ** 0.2), "filtered", "unfiltered", SHARE)
    assert [each.size for each in found] == list(SIZES)
    for each in found:
        assert list(each.to_general_best.values()) == pytest.approx([2 * (each.params / 1e6) ** 0.2] * 3)
        assert list(each.at_best.values()) == [1.0] * 3  # both are at their lowest after the last budget
        assert not each.bounds and each.params_non_embedding == each.params // 3
    assert [each.against_null for each in found] == ["below", "below", "below", "below"]


def test_the_null_is_held_against_an_interval_over_trunks():
    """The interval of the mean logarithm is Student's: of three ratios 3 e^-s, 3, 3 e^s it is ln 3 +- 4.303 s / sqrt(3)."""
    for scatter, word in ((0.01, "above"), (0.2, "open")):
        (each,) = cost_ratios(table(lambda n: 3.0, {"A": 1000}, scatter=scatter), "filtered", "unfiltered", SHARE)
        reach = 4.3026527 * scatter / math.sqrt(3)
        assert (each.low, each.high) == (pytest.approx(3 * math.exp(-reach)), pytest.approx(3 * math.exp(reach)))
        assert each.against_null == word
    (alone,) = cost_ratios(table(lambda n: 3.0, {"A": 1000}, seeds=1), "filtered", "unfiltered", SHARE)
    assert (alone.low, alone.against_null) == (None, "one trunk")
    values = [0.3, 0.1, 0.8, 0.5]
    known = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (
        mean_interval(values) == (pytest.approx(known.low), pytest.approx(known.high)) and mean_interval([1.0]) is None
    )


@pytest.mark.parametrize("ratio, bound", [(20.0, ("at least", 4.0)), (0.5, ("at most", 1.0))])
def test_outside_of_the_budgets_there_is_a_bound_and_no_ratio(ratio, bound):
    """20: filtered is below the other's best at its own first budget, a quarter of its cost. 0.5: it never gets there."""
    (each,) = cost_ratios(table(lambda n: ratio, {"A": 1000}), "filtered", "unfiltered", SHARE)
    assert not each.to_general_best and set(each.bounds.values()) == {bound}
    assert (each.low, each.against_null) == (None, None)


def test_forgetting_is_read_where_all_curves_are_equally_good():
    """Filtered lies ln 2 below: all curves share the losses from 5 - ln 4 up to 5 - ln 2. There an arm has lost its rate times what
    it gained, whatever its trunk knew."""
    found = forgetting(table(lambda n: 2.0), "filtered", "unfiltered", "general")
    for size in found:
        assert [level.at for level in size.levels] == pytest.approx(
            [5 - math.log(2), 5 - math.log(8) / 2, 5 - math.log(4)]
        )
        for level in size.levels:
            assert level.general == pytest.approx(0.2 * (5 - level.at))
            assert level.specialised == pytest.approx(0.5 * (5 - level.at))
            assert level.difference == pytest.approx(0.3 * (5 - level.at)) == pytest.approx(level.low)
            assert level.seeds == 3


def test_curves_that_share_no_loss_are_named_with_their_ranges():
    (size,) = forgetting(table(lambda n: 20.0, {"A": 1000}), "filtered", "unfiltered", "general")
    assert not size.levels
    assert size.ranges["unfiltered"] == (pytest.approx(5 - math.log(4)), 5.0)
    assert size.ranges["filtered"] == (pytest.approx(5 - math.log(80)), pytest.approx(5 - math.log(20)))


def test_only_sizes_and_seeds_of_both_arms_are_held_against_each_other():
    rows = [row for row in table(lambda n: 2.0) if (row["arm"], row["size"], row["seed"]) != ("filtered", "B", 0)]
    rows = [row for row in rows if (row["arm"], row["size"]) != ("unfiltered", "E")]
    found = {each.size: list(each.to_general_best) for each in cost_ratios(rows, "filtered", "unfiltered", SHARE)}
    assert found == {"A": [0, 1, 2], "B": [1, 2], "C": [0, 1, 2]}


def test_what_cannot_be_compared_is_refused():
    rows = table(lambda n: 2.0)
    with pytest.raises(
        ConfigurationError, match="no runs of the arm 'filterd'; it has 'base', 'unfiltered', 'filtered'"
    ):
        cost_ratios(rows, "filterd", "unfiltered", SHARE)
    with pytest.raises(ConfigurationError, match="no size and seed in common"):
        mixed = [row for row in rows if row["size"] == ("A" if row["arm"] == "filtered" else "B")]
        cost_ratios(mixed, "filtered", "unfiltered", SHARE)
    with pytest.raises(ConfigurationError, match="begins after"):
        cost_ratios([{**row, "budget_prior": row["budget"]} for row in rows], "filtered", "unfiltered", SHARE)
    with pytest.raises(ConfigurationError, match="is not annealed"):
        cost_ratios([{**row, "annealed": False} for row in rows], "filtered", "unfiltered", SHARE)
    with pytest.raises(ConfigurationError, match="did not measure 'code'; it has general, held_out"):
        forgetting(rows, "filtered", "unfiltered", "code")
    with pytest.raises(ConfigurationError, match="is not in the study's table"):
        forgetting([row for row in rows if row["arm"] != "base"], "filtered", "unfiltered", "general")


def test_arms_of_other_targets_or_trunks_are_refused():
    rows = table(lambda n: 2.0)
    elsewhere = [{**row, "target": "general"} if row["arm"] == "unfiltered" else row for row in rows]
    with pytest.raises(
        ConfigurationError, match="A, seed 0, are measured on.*'filtered' 'held_out', 'unfiltered' 'general'"
    ):
        cost_ratios(elsewhere, "filtered", "unfiltered", SHARE)
    with pytest.raises(ConfigurationError, match="different targets: 'filtered' 'held_out', 'base' 'general'"):
        cost_ratios(rows, "filtered", "base", SHARE)
    later = [
        {**row, "budget_prior": 900, "trunk": row["trunk"].replace("_100_", "_900_")}
        if row["arm"] == "unfiltered"
        else row
        for row in rows
    ]
    with pytest.raises(
        ConfigurationError, match="different trunks: 'filtered' 'runs_A.*_100_seed0', 'unfiltered'.*_900_"
    ):
        forgetting(later, "filtered", "unfiltered", "general")
    moved = [{**row, "trunk": "another"} if row["budget"] == 4000 else row for row in rows]
    with pytest.raises(ConfigurationError, match="different trunks: 'filtered' .*'filtered' 'another'"):
        cost_ratios(moved, "filtered", "unfiltered", SHARE)


def test_one_arm_several_beginnings_and_forgetting_of_the_target_are_refused():
    rows = table(lambda n: 2.0)
    with pytest.raises(ConfigurationError, match="both arms are 'filtered'"):
        cost_ratios(rows, "filtered", "filtered", SHARE)
    mixed = [{**row, "budget_prior": None} if row["budget"] == 4000 else row for row in rows]
    with pytest.raises(ConfigurationError, match=r"'filtered' begins after \[100, None\] tokens"):
        cost_ratios(mixed, "filtered", "unfiltered", SHARE)
    with pytest.raises(ConfigurationError, match="FORGOTTEN = 'held_out' is the arms' target"):
        forgetting(rows, "filtered", "unfiltered", "held_out")
