"""Budgets in tokens and units: hit exactly, or to less than a unit, and the smaller within the larger."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection.budgets import Budget, smallest, threshold_of

UNITS = st.lists(st.tuples(st.integers(0, 4).map(float), st.integers(1, 50)), min_size=1, max_size=30)


def by_hand(scores, sizes, limit, of, eligible):
    kept, spent = set(), 0
    for i in sorted(np.flatnonzero(eligible).tolist(), key=lambda i: (scores[i], i)):
        spent += sizes[i] if of == "tokens" else 1
        if spent > limit:
            break
        kept.add(i)
    return [i in kept for i in range(len(scores))]


@given(UNITS, st.integers(0, 800), st.sampled_from(["tokens", "units"]), st.data())
def test_the_smallest_are_kept_until_the_next_would_go_beyond(units, amount, of, data):
    scores, sizes = map(np.array, zip(*units, strict=True))
    eligible = np.array(data.draw(st.lists(st.booleans(), min_size=len(units), max_size=len(units))))
    kept = smallest(scores, sizes, Budget(amount=amount, of=of), eligible)
    assert kept.tolist() == by_hand(scores, sizes, amount, of, eligible)


@given(UNITS, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["tokens", "units"]))
def test_a_smaller_share_is_within_a_larger(units, one, other, of):
    scores, sizes = map(np.array, zip(*units, strict=True))
    less, more = (smallest(scores, sizes, Budget(share=each, of=of)) for each in sorted([one, other]))
    assert not (less & ~more).any()
    if of == "units":
        assert less.sum() == np.floor(min(one, other) * len(sizes) + 0.5)


def test_all_and_nothing():
    scores, sizes = np.array([2.0, np.inf, -1.0]), np.array([5, 5, 5])
    assert smallest(scores, sizes, Budget(share=1.0)).all() and not smallest(scores, sizes, Budget(share=0.0)).any()
    assert (
        threshold_of(scores, np.array([True, False, True])) == 2 and threshold_of(scores, np.zeros(3, bool)) == -np.inf
    )
    assert smallest(scores[:0], sizes[:0], Budget(amount=3)).shape == (0,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "either a share or an amount"),
        ({"share": 0.5, "amount": 3}, "either a share or an amount"),
        ({"share": 1.5}, "between 0 and 1"),
        ({"amount": -1}, "amount = -1 is below 0"),
        ({"share": 0.5, "of": "words"}, "one of tokens, units"),
    ],
)
def test_a_budget_that_is_none_is_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        Budget(**wrong)
