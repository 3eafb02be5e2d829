"""Near-duplicates against brute force, against a corpus whose pairs are known, and in numbers."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection import prefix_filter
from cptjax.selection.near_duplicates import groups, near_duplicate_pairs
from cptjax.selection.shingles import character_shingles

SMALL = st.lists(st.sets(st.integers(0, 12), max_size=10), max_size=14)
EDITS = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39), st.integers(40, 60)), max_size=12)


def edited(edits):
    """Sets of about 40, each made of an earlier one by a few exchanges: sizes, prefixes and places all come near the bounds."""
    sets = [set(range(40)), set(range(20, 55))]
    for source, away, new in edits:
        sets.append(sets[source % len(sets)] - {away, away + 1} | ({new, new + 1, new + 2} if new % 3 else set()))
    return sets


SETS = st.one_of(SMALL, EDITS.map(edited))
THRESHOLDS = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.9, 1.0])


def arrays(sets):
    return [np.sort(np.array(list(each), np.uint64) * np.uint64(0x9E3779B97F4A7C15)) for each in sets]


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
    found = near_duplicate_pairs(arrays(sets), threshold)
    assert found.tolist() == sorted(brute_force(sets, threshold))


@given(SETS, THRESHOLDS)
def test_the_groups_are_the_components_of_those_pairs(sets, threshold):
    label = list(range(len(sets)))
    for _ in sets:
        for i, j in brute_force(sets, threshold):
            label[i] = label[j] = min(label[i], label[j])
    assert groups(arrays(sets), threshold).tolist() == label


@given(SETS, THRESHOLDS, st.integers(1, 60))
def test_small_blocks_give_the_same(sets, threshold, block):
    given_sets = arrays(sets)
    pairs, labels = near_duplicate_pairs(given_sets, threshold).tolist(), groups(given_sets, threshold).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_filter, "_BLOCK", block)
        assert near_duplicate_pairs(given_sets, threshold).tolist() == pairs
        assert groups(given_sets, threshold).tolist() == labels


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


def from_a_template(texts, edits, generator):
    """Sets of 200 shingles, of which each has `edits` exchanged at random places, for one of a few."""
    sets = np.tile(np.arange(200), (texts, 1))
    for each in sets:
        at = generator.choice(200, edits, replace=False)
        each[at] = 1000 + 40 * at + generator.integers(0, 40, edits)
    return [np.unique(each.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) for each in sets]


def test_thousands_of_texts_from_a_template_whose_edits_differ_are_one_group():
    """No two share the same prefix: were all pairs compared (12.5 million, once for each shared shingle), it would take hours."""
    sets = from_a_template(5000, 12, np.random.default_rng(0))  # any two share 176 of 224, or a little more
    assert not groups(sets, 0.7).any()


def test_texts_from_a_template_that_are_not_similar_enough_stay_apart():
    sets = from_a_template(400, 60, np.random.default_rng(0))  # any two share about 100 of 300
    assert groups(sets, 0.7).tolist() == list(range(400)) and not len(near_duplicate_pairs(sets, 0.7))


def test_memory_does_not_grow_with_the_square_of_the_texts_that_share_a_shingle(monkeypatch):
    monkeypatch.setattr(prefix_filter, "_BLOCK", 1 << 14)
    generator = np.random.default_rng(0)
    sets = [np.unique(np.append(generator.integers(1, 2**63, 2, dtype=np.uint64), np.uint64(0))) for _ in range(3000)]
    sets[1] = sets[0].copy()
    sets[2] = np.append(sets[0], np.uint64(2**63))
    tracemalloc.start()
    found = near_duplicate_pairs(sets, 0.3).tolist()  # 3,000 share one shingle, which is in all their prefixes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [[0, 1], [0, 2], [1, 2]] and peak < 3000**2


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(ConfigurationError, match="near-duplicates"):
        groups([np.array([1], np.uint64)], threshold)


def test_nothing_gives_nothing():
    assert groups([], 0.5).tolist() == [] and near_duplicate_pairs([], 0.5).shape == (0, 2)
    assert groups([np.zeros(0, np.uint64)] * 2, 0.5).tolist() == [0, 1]
