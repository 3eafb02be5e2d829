"""The validation split: decided by the text, capped, and never all or nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.sources import documents, find_source
from cptjax.data.splits import SplitSettings, held_out, places, same_text
from cptjax.errors import ConfigurationError
from cptjax.selection.near_duplicates import near_duplicate_pairs
from cptjax.selection.shingles import word_shingles


@given(st.text(max_size=30))
def test_what_only_looks_different_is_one_group(text):
    assert same_text(text) == same_text(f"  {text}\n\u00a0") == same_text(text.replace(" ", " \t\n"))


def test_compatibility_forms_and_case_are_one_group_and_other_texts_are_not():
    assert same_text("ﬁnal Ｌａｗ Å") == same_text("FINAL law A\u030a")
    assert same_text("the law") != same_text("thelaw") != same_text("the laws")


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=60),
    st.lists(st.integers(0, 59), max_size=40),
    st.floats(0, 0.5),
    st.integers(1, 500),
)
def test_groups_stay_whole_and_both_sides_get_something(distinct, repeats, fraction, cap):
    groups = np.array(distinct + [distinct[i % len(distinct)] for i in repeats], np.uint64)
    found = held_out(groups, np.full(len(groups), 10), SplitSettings(fraction, cap))
    assert not set(groups[found]) & set(groups[~found])
    if fraction and len(set(distinct)) > 1:
        assert found.any() and not found.all()
    else:
        assert not found.any()


def test_the_fraction_is_kept_and_the_cap_gives_back():
    groups = np.array([same_text(f"document {i}") for i in range(4000)], np.uint64)
    tokens = np.full(4000, 100)
    assert held_out(groups, tokens, SplitSettings(0.05, 10**9)).sum() == pytest.approx(200, abs=45)
    capped = held_out(groups, tokens, SplitSettings(0.05, 1000))
    assert capped.sum() == 10
    assert not (capped & ~held_out(groups, tokens, SplitSettings(0.05, 10**9))).any()


def test_the_order_of_documents_does_not_matter():
    groups = np.array([same_text(f"{i}") for i in range(500)], np.uint64)
    tokens, order = np.arange(500), np.random.default_rng(0).permutation(500)
    settings = SplitSettings(0.1, 3000)
    assert (held_out(groups, tokens, settings)[order] == held_out(groups[order], tokens[order], settings)).all()


@pytest.mark.parametrize(("fraction", "cap"), [(-0.1, 10), (0.6, 10), (0.1, 0)])
def test_settings_that_make_no_sense_are_refused(fraction, cap):
    with pytest.raises(ConfigurationError, match="validation_"):
        SplitSettings(fraction, cap)


@pytest.mark.parametrize("similarity", [0, -0.5, 1.01, float("nan")])
def test_a_similarity_that_makes_no_sense_is_refused(similarity):
    with pytest.raises(ConfigurationError, match="near_duplicates"):
        SplitSettings(near_duplicates=similarity)


def test_a_groups_place_is_uniform_however_many_texts_it_has():
    """The smallest of ten hashes would lie below 0.05 in 40% of the groups."""
    below = 0
    for i in range(400):
        text = " ".join(f"{i}-{n}" for n in range(20))
        place, _ = place_of([f"{text} {ending}" for ending in range(10)])
        assert len(set(place.tolist())) == 1
        below += place[0] < 0.05 * 2**64
    assert below == pytest.approx(0.05 * 400, abs=16)


WORDS = [f"w{i}" for i in range(30)]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12)


def place_of(texts, threshold=0.7):
    shingles = [word_shingles(text) for text in texts]
    return places(np.array([same_text(text) for text in texts], np.uint64), shingles, threshold), shingles


@given(TEXTS, st.lists(st.tuples(st.integers(0, 11), st.sampled_from(WORDS)), max_size=8))
def test_near_duplicates_share_a_place_and_others_keep_theirs_in_any_corpus(texts, edits):
    texts = texts + [f"{texts[i % len(texts)]} {word}" for i, word in edits]  # longer texts are then near-duplicates
    place, shingles = place_of(texts)
    pairs = near_duplicate_pairs(shingles, 0.7)
    for i, j in pairs:
        assert place[i] == place[j]
    for i in set(range(len(texts))) - set(pairs.ravel().tolist()):
        alone, _ = place_of([texts[i]])
        assert place[i] == alone[0]


def test_texts_without_words_are_together_only_where_they_are_the_same():
    place, _ = place_of(["...", "!?", " ... ", "a b"])
    assert place[0] == place[2] and len(set(place.tolist())) == 3


def test_without_a_threshold_only_the_same_texts_are_together():
    text = "one two three four five six seven eight"
    texts = [text, text.title() + " ", text.replace("eight", "nine")]
    same = np.array([same_text(text) for text in texts], np.uint64)
    assert len(set(places(same, None, None).tolist())) == 2
    assert len(set(place_of(texts, 0.5)[0].tolist())) == 1


def test_real_documentation_leaves_no_near_duplicate_on_the_other_side():
    texts = [document.text for document in documents(find_source("x", "python:documentation#4e6"))]
    place, shingles = place_of(texts)
    pairs = near_duplicate_pairs(shingles, 0.7)
    found = held_out(place, np.full(len(texts), 100), SplitSettings(0.2, 10**9))
    assert len(pairs) > 3 and found.any()
    assert all(found[i] == found[j] for i, j in pairs)
