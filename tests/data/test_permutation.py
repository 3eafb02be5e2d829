"""The order of rows: a bijection for every size and key, different in every epoch, and balanced."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.data.permutation import permutation_key, permute, permute_each


@given(st.integers(1, 5000), st.integers(0, 2**63), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_each_place_is_sent_to_a_place_of_its_own(n, seed, epoch):
    found = permute(permutation_key(seed, "law", epoch), n, np.arange(n))
    assert (np.sort(found) == np.arange(n)).all()


@given(st.integers(2, 2**40), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_a_few_of_very_many_stay_apart_and_in_range(n, seed):
    some = np.unique(np.linspace(0, n - 1, 64).astype(np.int64))
    found = permute(permutation_key(seed, "law", 0), n, some)
    assert found.min() >= 0 and found.max() < n and len(np.unique(found)) == len(some)


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=6), st.integers(0, 2**31), st.randoms())
@settings(max_examples=50, deadline=None)
def test_many_orders_at_once_are_each_their_own(sizes, seed, random):
    keys = [permutation_key(seed, "law", epoch) for epoch in range(len(sizes))]
    which = np.array([random.randrange(len(sizes)) for _ in range(50)])
    indices = np.array([random.randrange(sizes[i]) for i in which])
    found = permute_each(keys, sizes, which, indices)
    each = [permute(keys[i], sizes[i], np.array([at]))[0] for i, at in zip(which, indices, strict=True)]
    assert found.tolist() == each
    assert permute_each([], [], which[:0], indices[:0]).tolist() == []


def test_epochs_seeds_and_sources_have_their_own_orders():
    keys = [permutation_key(*key) for key in ((0, "a", 0), (0, "a", 1), (1, "a", 0), (0, "b", 0))]
    orders = [tuple(permute(key, 1000, np.arange(1000))) for key in keys]
    assert len(set(orders)) == 4


def test_places_are_spread_evenly():
    n, cells = 10_000, 10
    counts = np.zeros((cells, cells))
    for epoch in range(20):
        found = permute(permutation_key(7, "a", epoch), n, np.arange(n))
        np.add.at(counts, (np.arange(n) * cells // n, found * cells // n), 1)
    expected = 20 * n / cells**2
    assert ((counts - expected) ** 2 / expected).sum() < 145  # chi squared, 81 degrees of freedom: p = 1e-5


def test_an_index_outside_is_refused():
    with pytest.raises(IndexError):
        permute(permutation_key(0, "a", 0), 10, np.array([10]))
    with pytest.raises(IndexError, match="0 .. 9"):
        permute(permutation_key(0, "a", 0), 10, np.array([-1]))
