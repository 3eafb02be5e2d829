"""Near-duplicate removal: of each group one stays, by the rule that was asked for, and the manifest can say why."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection.deduplication import STAGE, NearDuplicates
from cptjax.selection.shingles import character_shingles, word_shingles

TEXTS = st.lists(st.text("abc", max_size=9), max_size=12)


def connected(texts, threshold):
    """For each text the set of those that a chain of similar pairs of 2-character shingles joins it with."""
    sets = [{text[i : i + 2] for i in range(max(1, len(text) - 1))} if text else set() for text in texts]
    groups = [{i} for i in range(len(texts))]
    for i in range(len(texts)):
        for j in range(i):
            if sets[i] and sets[j] and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold:
                joined = groups[i] | groups[j]
                for k in joined:
                    groups[k] = joined
    return sets, groups


@given(TEXTS, st.sampled_from([0.5, 0.7, 1.0]), st.sampled_from(["first", "longest"]))
@settings(max_examples=60)
def test_of_each_group_one_stays_by_the_rule(texts, threshold, keep):
    fates, _ = NearDuplicates(threshold, 2, keep).select(iter(texts))
    sets, groups = connected(texts, threshold)
    for i, fate in enumerate(fates):
        stays = min(groups[i], key=lambda j: (-len(texts[j]) if keep == "longest" else 0, j))
        assert fate.kept == (i == stays) and fate.cluster == (min(groups[i]) if len(groups[i]) > 1 else None)
        if fate.kept:
            assert fate.stage is None and fate.instead is None and fate.score is None
        else:
            assert fate.stage == STAGE and fate.instead == stays
            assert fate.score == pytest.approx(len(sets[i] & sets[stays]) / len(sets[i] | sets[stays]))


@pytest.mark.parametrize("written", [3, 3.0, "3 characters"])
def test_a_number_is_of_characters(written):
    assert np.array_equal(NearDuplicates(shingle=written).shingles("a B c d"), character_shingles("a B c d", 3))
    assert np.array_equal(NearDuplicates(shingle="3 words").shingles("a B c d"), word_shingles("a B c d", 3))


def test_a_corpus_beyond_the_limit_is_compared_by_a_sample_and_says_so():
    texts = [" ".join(f"{n}_{i}" for i in range(300)) for n in (1, 2, 1)]
    fates, found = NearDuplicates(shingle="2 words", most_shingles=500).select(texts)
    assert [fate.kept for fate in fates] == [True, True, False] and "one shingle in 2" in found


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": 0}, "THRESHOLD = 0"),
        ({"threshold": "0.7"}, "THRESHOLD = '0.7'"),
        ({"shingle": 0}, "SHINGLE = 0: write it like"),
        ({"shingle": 2.5}, "SHINGLE = 2.5"),
        ({"shingle": True}, "SHINGLE = True"),
        ({"shingle": "words"}, "SHINGLE = 'words'"),
        ({"keep": "last"}, "KEEP = 'last': one of first, longest"),
        ({"most_shingles": 0}, "most_shingles"),
    ],
)
def test_settings_that_are_none_are_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        NearDuplicates(**wrong)
