"""The validation split: decided by the text, capped, and never all or nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.splits import SplitSettings, held_out, text_group
from cptjax.errors import ConfigurationError


@given(st.text(max_size=30))
def test_what_only_looks_different_is_one_group(text):
    assert text_group(text) == text_group(f"  {text}\n\u00a0") == text_group(text.replace(" ", " \t\n"))


def test_compatibility_forms_and_case_are_one_group_and_other_texts_are_not():
    assert text_group("ﬁnal Ｌａｗ Å") == text_group("FINAL law A\u030a")
    assert text_group("the law") != text_group("thelaw") != text_group("the laws")


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
    groups = np.array([text_group(f"document {i}") for i in range(4000)], np.uint64)
    tokens = np.full(4000, 100)
    assert held_out(groups, tokens, SplitSettings(0.05, 10**9)).sum() == pytest.approx(200, abs=45)
    capped = held_out(groups, tokens, SplitSettings(0.05, 1000))
    assert capped.sum() == 10
    assert not (capped & ~held_out(groups, tokens, SplitSettings(0.05, 10**9))).any()


def test_the_order_of_documents_does_not_matter():
    groups = np.array([text_group(f"{i}") for i in range(500)], np.uint64)
    tokens, order = np.arange(500), np.random.default_rng(0).permutation(500)
    settings = SplitSettings(0.1, 3000)
    assert (held_out(groups, tokens, settings)[order] == held_out(groups[order], tokens[order], settings)).all()


@pytest.mark.parametrize(("fraction", "cap"), [(-0.1, 10), (0.6, 10), (0.1, 0)])
def test_settings_that_make_no_sense_are_refused(fraction, cap):
    with pytest.raises(ConfigurationError, match="validation_"):
        SplitSettings(fraction, cap)
