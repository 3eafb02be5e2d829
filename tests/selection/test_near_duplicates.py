"""Near-duplicates against brute force, against a corpus whose pairs are known, and in numbers."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection import near_duplicates
from cptjax.selection.near_duplicates import groups, near_duplicate_pairs
from cptjax.selection.shingles import character_shingles

SETS = st.lists(st.sets(st.integers(0, 12), max_size=10), max_size=14)
THRESHOLDS = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.9, 1.0])


def arrays(sets):
    return [np.array(sorted(each), np.uint64) * np.uint64(0x9E3779B97F4A7C15) for each in sets]


def similar(a, b, threshold):
    from fractions import Fraction

    return bool(a | b) and Fraction(len(a & b), len(a | b)) >= Fraction(threshold).limit_denominator(1000)


def brute_force(sets, threshold):
    return [
        [i, j]
        for j in range(len(sets))
        for i in range(j)
        if sets[i] and sets[j] and similar(sets[i], sets[j], threshold)
    ]


@given(SETS, THRESHOLDS)
def test_the_pairs_are_those_of_brute_force(sets, threshold):
    found = near_duplicate_pairs([np.sort(each) for each in arrays(sets)], threshold)
    assert found.tolist() == sorted(brute_force(sets, threshold))


@given(SETS, THRESHOLDS)
def test_the_groups_are_the_components_of_those_pairs(sets, threshold):
    label = list(range(len(sets)))
    for _ in sets:
        for i, j in brute_force(sets, threshold):
            label[i] = label[j] = min(label[i], label[j])
    assert groups([np.sort(each) for each in arrays(sets)], threshold).tolist() == label


@given(SETS, THRESHOLDS)
def test_small_blocks_give_the_same(sets, threshold):
    given_sets = [np.sort(each) for each in arrays(sets)]
    whole = near_duplicate_pairs(given_sets, threshold).tolist()
    before, near_duplicates._BLOCK = near_duplicates._BLOCK, 3
    try:
        assert near_duplicate_pairs(given_sets, threshold).tolist() == whole
    finally:
        near_duplicates._BLOCK = before


def test_all_31_pairs_of_the_chinese_statutes_are_found(shared_data):
    with gzip.open(shared_data / "corpora" / "chinese_law.jsonl.gz", "rt", encoding="utf-8") as lines:
        sets = [character_shingles(json.loads(line)["text"], 5) for line in lines]
    assert len(near_duplicate_pairs(sets, 0.7)) == 31
    labels, sizes = np.unique(groups(sets, 0.7), return_counts=True)
    assert len(sets) == 797 and (sizes > 1).sum() == 27 and len(sets) - len(labels) == 29


def test_thousands_of_near_copies_are_one_group():
    generator = np.random.default_rng(0)
    common = generator.integers(0, 2**63, 200, dtype=np.uint64)
    sets = [np.unique(np.append(common, np.uint64(2**63 + i))) for i in range(5000)]
    others = [np.unique(generator.integers(0, 2**63, 200, dtype=np.uint64)) for _ in range(500)]
    assert groups([*sets, *others], 0.7).tolist() == [0] * 5000 + list(range(5000, 5500))


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(ConfigurationError, match="near-duplicates"):
        groups([np.array([1], np.uint64)], threshold)


def test_nothing_gives_nothing():
    assert groups([], 0.5).tolist() == [] and near_duplicate_pairs([], 0.5).shape == (0, 2)
    assert groups([np.zeros(0, np.uint64)] * 2, 0.5).tolist() == [0, 1]
