"""Agreement of clusters with labels: against counting all pairs, and where it is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.selection.agreement import adjusted_rand, contingency, purity

UNITS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), min_size=2, max_size=25)


@given(UNITS)
def test_the_index_is_that_of_all_pairs(units):
    clusters, labels = np.array([c for c, _ in units]), [label for _, label in units]
    names, table = contingency(clusters, labels)
    assert table.sum() == len(units) and names == sorted(set(labels))
    pairs = list(itertools.combinations(units, 2))
    both = sum(a[0] == b[0] and a[1] == b[1] for a, b in pairs)
    mine, theirs = sum(a[0] == b[0] for a, b in pairs), sum(a[1] == b[1] for a, b in pairs)
    expected = mine * theirs / len(pairs)
    if (mine + theirs) / 2 == expected:
        assert adjusted_rand(table) == 1.0
    else:
        assert adjusted_rand(table) == pytest.approx((both - expected) / ((mine + theirs) / 2 - expected))
    commonest = sum(max(sum(u == (c, name) for u in units) for name in names) for c in set(clusters.tolist()))
    assert purity(table) == pytest.approx(commonest / len(units))


def test_the_same_groups_under_other_names_agree_and_drawn_ones_do_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    _, table = contingency((labels + 1) % 3, [f"l{n}" for n in labels])
    assert (purity(table), adjusted_rand(table)) == (1.0, 1.0)
    _, table = contingency(rng.integers(0, 3, 3000), [f"l{n}" for n in labels])
    assert abs(adjusted_rand(table)) < 0.01 and purity(table) < 0.4
