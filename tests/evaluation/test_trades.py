"""Gain against forgetting, worked by hand."""

from hypothesis import given
from hypothesis import strategies as st

from cptjax.evaluation.trades import Trade, trades

CHANGES = st.floats(-2, 2, allow_nan=False)


def test_gain_forgetting_exchange_rate_and_frontier():
    found = trades(
        {"much": (-1.0, 0.5), "some": (-0.5, 0.1), "worse": (-0.5, 0.25), "lost": (0.25, 0.1), "both": (-0.25, -0.125)}
    )
    assert found == {
        "much": Trade(1.0, 0.5, 0.5, True),
        "some": Trade(0.5, 0.1, 0.2, True),
        "worse": Trade(0.5, 0.25, 0.5, False),
        "lost": Trade(-0.25, 0.1, None, False),
        "both": Trade(0.25, -0.125, -0.5, True),
    }


@given(st.dictionaries(st.text(max_size=3), st.tuples(CHANGES, CHANGES), min_size=1, max_size=8))
def test_someone_is_always_on_the_frontier_and_everyone_else_is_beaten_by_one_who_is(changes):
    found = trades(changes)
    frontier = [trade for trade in found.values() if trade.on_frontier]
    assert frontier
    for trade in found.values():
        assert any(other.gain >= trade.gain and other.forgetting <= trade.forgetting for other in frontier)
