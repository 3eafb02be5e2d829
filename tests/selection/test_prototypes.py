"""Which units are typical of their cluster, by definition; and which clusters duplicates have made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.selection.budgets import Budget, smallest
from cptjax.selection.prototypes import Cluster, describe_clusters, duplicate_driven, typicality

UNITS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(1, 50)), min_size=1, max_size=40)


def columns(units):
    labels, distances, sizes = zip(*units, strict=True)
    return np.array(labels), np.array(distances, np.float32) / 6, np.array(sizes)


@given(UNITS)
def test_a_units_place_is_what_stands_farther_from_its_centroid(units):
    labels, distances, sizes = columns(units)
    for i, place in enumerate(typicality(labels, distances, sizes)):
        mine = [j for j in range(len(units)) if labels[j] == labels[i]]
        before = sum(sizes[j] for j in mine if (-distances[j], j) < (-distances[i], i))
        assert place == pytest.approx((before + sizes[i] / 2) / sum(sizes[j] for j in mine), abs=1e-12)


@given(UNITS, st.floats(0, 1))
def test_of_every_cluster_the_same_share_is_kept_and_the_closest_go(units, share):
    labels, distances, _ = columns(units)
    ones = np.ones(len(labels), np.int64)
    kept = smallest(typicality(labels, distances, ones), ones, Budget(share=share, of="units"))
    assert kept.sum() == np.floor(share * len(labels) + 0.5)
    for label in set(labels.tolist()):
        mine = labels == label
        assert abs(kept[mine].sum() - share * mine.sum()) <= 1 + 1e-9
        assert distances[mine & kept].min(initial=np.inf) >= distances[mine & ~kept].max(initial=-np.inf)


def test_clusters_are_described_and_those_of_copies_stand_out():
    labels = np.array([2, 2, 2, 0, 0, 0, 5, -1])
    distances = np.array([0.01, 0.01, 0.01, 0.1, 0.3, 0.5, 0.2, np.nan], np.float32)
    found = describe_clusters(labels, distances)
    assert [(each.label, each.units) for each in found] == [(0, 3), (2, 3), (5, 1)]
    assert found[0].distance == pytest.approx(0.3) and found[0].spread == pytest.approx(np.std([0.1, 0.3, 0.5]))
    assert [each.label for each in duplicate_driven(found)] == [2]  # one unit has no spread, and is no sign of copies
    assert duplicate_driven([Cluster(0, 3, 0.0, 0.03)], spread=0.03) == []
    assert describe_clusters(np.full(2, -1), np.full(2, np.nan)) == []
