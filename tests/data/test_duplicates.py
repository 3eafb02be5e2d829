"""Duplicates within and across sets of texts, against a comparison of every pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data import duplicates as duplicates_module
from cptjax.data.duplicates import find_duplicates
from cptjax.data.splits import same_text
from cptjax.errors import ConfigurationError
from cptjax.selection.shingles import word_shingles

LONG = "a text of some words that goes on for a while so that one word more or less does not matter at all to it"
texts = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.sampled_from("a b c".split()), max_size=9).map(" ".join)), max_size=30
)


def found_in(documents, sets=3, threshold=0.5):
    member = np.array([which for which, _ in documents], np.int64)
    hashes = np.array([same_text(text) for _, text in documents], np.uint64)
    return find_duplicates(member, sets, hashes, [word_shingles(text) for _, text in documents], threshold)


def by_brute_force(documents, sets=3, threshold=0.5):
    exact, near = np.zeros((2, len(documents), sets), bool)
    for i, (_, one) in enumerate(documents):
        for j, (which, other) in enumerate(documents):
            if i == j:
                continue
            a, b = set(word_shingles(one).tolist()), set(word_shingles(other).tolist())
            same = same_text(one) == same_text(other)
            exact[i, which] |= same
            near[i, which] |= same or bool(a and b) and len(a & b) / len(a | b) >= threshold
    return exact, near


@given(texts)
def test_what_a_comparison_of_all_pairs_finds(documents):
    found = found_in(documents)
    exact, near = by_brute_force(documents)
    assert (found.exact == exact).all() and (found.near == near).all() and not found.chained
    for (one, other), pairs in found.examples.items():
        assert one <= other and 0 < len(pairs) <= 10
        for pair in pairs:
            assert (documents[pair.one][0], documents[pair.other][0]) == (one, other) and pair.one != pair.other
            assert pair.same == (same_text(documents[pair.one][1]) == same_text(documents[pair.other][1]))
    member = [which for which, _ in documents]
    shared = {tuple(sorted((member[i], which))) for i, which in zip(*np.nonzero(found.near), strict=True)}
    assert set(found.examples) == shared


def test_batches_change_nothing_and_large_groups_go_by_chains(monkeypatch):
    documents = [(i % 3, f"{LONG} {'x ' * i}") for i in range(12)] + [(0, "another text altogether, of no group")]
    whole = found_in(documents, threshold=0.7)
    monkeypatch.setattr(duplicates_module, "_COMPARISONS", 1)
    assert (found_in(documents, threshold=0.7).near == whole.near).all()
    monkeypatch.setattr(duplicates_module, "LARGEST", 4)
    chained = found_in(documents, threshold=0.7)
    assert chained.chained == 12 and chained.near[:12].all() and not chained.near[12].any()


def test_a_text_without_words_is_compared_by_itself():
    found = found_in([(0, "!!"), (1, " !! "), (1, "??")])
    assert found.near.tolist() == [[False, True, False], [True, False, False], [False] * 3]


def test_no_documents_and_a_wrong_threshold():
    assert found_in([]).near.shape == (0, 3)
    with pytest.raises(ConfigurationError, match="similarity of near-duplicates"):
        found_in([(0, "a")], threshold=0)
