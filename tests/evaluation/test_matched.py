"""Forgetting at matched loss: curves whose answer is known in closed form or by hand, and the rows of an evaluation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.evaluation.curves import cost_to_reach
from cptjax.evaluation.documents import DocumentLosses
from cptjax.evaluation.matched import TwoLosses, at_equal_target, old_loss_at, shared_range
from cptjax.evaluation.matched_rows import matched_rows
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.savings import Asked, Costs, Stop, curves_table
from cptjax.reporting.savings import savings_table
from cptjax.reporting.table_text import as_markdown


def curve(*points):
    return [TwoLosses(*each) for each in points]


def test_between_points_both_losses_are_linear_in_the_logarithm_of_the_cost():
    """By hand: halfway in the logarithm from 100 to 400 is 200, where the target has 3.5 and the old domain 1.25."""
    slow = curve((100, 4.0, 1.0), (400, 3.0, 1.5))
    assert old_loss_at(slow, 3.5) == pytest.approx(1.25)
    assert cost_to_reach([each.point for each in slow], 3.5) == pytest.approx(200)
    assert old_loss_at(list(reversed(slow)), 3.0) == 1.5 and old_loss_at(slow, 4.0) == 1.0
    assert old_loss_at(slow, 4.1) is None and old_loss_at(slow, 2.9) is None  # nothing is extrapolated
    assert old_loss_at(curve((100, 4.0, 1.0)), 4.0) == 1.0


def test_what_comes_first_counts_where_a_curve_is_not_monotone():
    bumpy = curve((1, 4.0, 1.0), (2, 3.0, 2.0), (4, 3.5, 9.0), (8, 2.0, 3.0))
    assert old_loss_at(bumpy, 3.5) == pytest.approx(1.5)
    assert old_loss_at(bumpy, 2.75) == pytest.approx(9.0 - 6.0 / 2)  # halfway down from 3.5 to 2


@given(
    rise=st.lists(st.floats(0.1, 3), min_size=2, max_size=2),
    start=st.floats(3, 5),
    level=st.floats(0.05, 0.95),
    points=st.integers(2, 7),
)
def test_arms_of_known_exchange_rates_differ_by_the_rates_difference(rise, start, level, points):
    """Target start - ln(cost), old 1 + rate x ln(cost): at a target loss L an arm has forgotten rate x (start - L) whatever it
    cost, and however many points it has."""
    arms = []
    for rate, spread in zip(rise, (1.0, 1.7), strict=True):
        costs = np.geomspace(1, math.e ** (2 * spread), points)
        arms.append([TwoLosses(c, start - math.log(c), 1 + rate * math.log(c)) for c in costs])
    at = start - 2 * level
    found = at_equal_target(*arms, at)
    assert found.first - 1 == pytest.approx(rise[0] * 2 * level, abs=1e-9)
    assert found.difference == pytest.approx((rise[1] - rise[0]) * 2 * level, abs=1e-9)
    assert shared_range(arms) == (pytest.approx(start - 2), start)


def test_curves_that_do_not_overlap_say_nothing():
    high, low = curve((1, 9.0, 1.0), (2, 8.0, 1.0)), curve((1, 5.0, 1.0), (2, 4.0, 1.0))
    assert shared_range([high, low]) is None
    assert all(at_equal_target(high, low, at) is None for at in (9.0, 8.0, 6.0, 5.0, 4.0))
    assert shared_range([high, curve((1, 8.0, 3.0))]) == (8.0, 8.0)


def test_what_is_no_curve_is_refused():
    warm = [TwoLosses(1, 4.0, 1.0), TwoLosses(2, 3.0, 1.0, annealed=False)]
    for refused, message in (
        (warm, "is not annealed"),
        ([], "no points"),
        (curve((1, 4.0, math.nan), (2, 3.0, 1.0)), "nan on the old domain"),
        (curve((1, 4.0, 1.0), (1, 3.0, 1.0)), "two points of the same cost"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            old_loss_at(refused, 3.5)
    with pytest.raises(ConfigurationError, match="is not annealed"):
        shared_range([warm])


def measured(label, law, prose, spread=0.0, documents=30):
    """Losses on the documents around the mean, by a share that is not the same for all."""
    factors = 1 + spread * np.linspace(-1, 1, documents)
    names, counts = tuple(f"d{i}" for i in range(documents)), np.full(documents, 10)
    sources = {
        name: DocumentLosses(names, mean * 10 * factors, counts, np.full(documents, 40))
        for name, mean in (("law", law), ("prose", prose))
    }
    return Measurement(label, "/it", 1, 1, label, "t", dict.fromkeys(sources, "t"), sources, None, None)


MEASURED = [
    measured("base", 6.0, 2.0, 0.1),
    measured("u1", 5.0, 2.1, 0.1),
    measured("u2", 4.0, 2.5, 0.1),
    measured("f1", 4.5, 2.8, 0.1),
    measured("f2", 3.0, 4.0, 0.1),
]


def stop(label, cost):
    return Stop((label,), Costs(cost, 10 * cost, None))


def asked(matched_on="law", **curves):
    return Asked({name: tuple(stop(*each) for each in its) for name, its in curves.items()}, None, matched_on)


UNFILTERED, FILTERED = [("u1", 100), ("u2", 200)], [("f1", 100), ("f2", 200)]


def test_rows_are_read_off_at_each_points_loss_that_lies_on_both_curves():
    """By hand: at 4.5 `u` is halfway, 2.3, and `f` at 2.8; at 4.0 `u` is at 2.5 and `f` a third of the way to 4: 3.2. The base has
    2.0. At 5 and at 3 one of them is not there."""
    rows, said = matched_rows(asked(unfiltered=UNFILTERED, filtered=FILTERED), MEASURED, MEASURED[0], 0)
    found = {(row["checkpoint"], row["metric"]): row["value"] for row in rows}
    assert {row["subset"] for row in rows} == {"prose at equal loss on law: filtered against unfiltered"}
    assert {checkpoint for checkpoint, _ in found} == {"u2", "f1"}
    for at, loss, first, other in (("f1", 4.5, 0.3, 0.8), ("u2", 4.0, 0.5, 1.2)):
        assert found[at, "matched_loss"] == pytest.approx(loss)
        assert found[at, "forgetting_of_first"] == pytest.approx(first)
        assert found[at, "forgetting"] == pytest.approx(other)
        assert found[at, "forgetting_difference"] == pytest.approx(other - first)
    assert len(said) == 1 and "nothing at the loss of u1, f2, which lies outside one of them" in said[0]
    assert "forgetting at that loss, less the first curve's: 0.500" in "\n".join(curves_table(rows))
    assert "+0.500" in as_markdown([savings_table(rows)])


def test_intervals_draw_the_documents_of_either_source_apart():
    """Every loss of a draw is that of the documents times one factor: of the target's the place stays, of the old domain's the
    difference is 0.5 times it. So its interval is that of the mean of the factors of 30 documents."""
    rows, _ = matched_rows(asked(unfiltered=UNFILTERED, filtered=FILTERED), MEASURED, MEASURED[0], 0)
    row = next(row for row in rows if (row["checkpoint"], row["metric"]) == ("f1", "forgetting_difference"))
    error = 0.5 * float(np.std(0.1 * np.linspace(-1, 1, 30))) / math.sqrt(30)
    assert row["high"] - 0.5 == pytest.approx(1.96 * error, rel=0.1) == 0.5 - row["low"]
    assert (row["n"], row["interval"]) == (30, "documents (these checkpoints only)")


def test_curves_apart_are_named_and_nothing_is_said_where_nothing_is_asked():
    rows, said = matched_rows(asked(unfiltered=[("u1", 100)], filtered=FILTERED), MEASURED, MEASURED[0], 0)
    assert rows == [] and "u1, f1, f2" in said[0]
    for nothing in (None, asked(matched_on=None, unfiltered=UNFILTERED, filtered=FILTERED)):
        assert matched_rows(nothing, MEASURED, MEASURED[0], 0) == ([], [])
    broken = [*MEASURED[:-1], measured("f2", 3.0, math.inf)]
    rows, said = matched_rows(asked(unfiltered=UNFILTERED, filtered=FILTERED), broken, MEASURED[0], 0)
    assert rows == [] and "not finite" in said[0]
