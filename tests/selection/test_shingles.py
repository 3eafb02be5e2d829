"""Shingles: what counts as the same text, and what a bounded memory keeps."""

import re
import subprocess
import sys
import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cptjax.selection.shingles import ShingleStore, character_shingles, word_shingles


def test_case_punctuation_and_white_space_do_not_count():
    assert np.array_equal(word_shingles("The cat sat, on\n a MAT!"), word_shingles("the cat sat on a ｍａｔ"))
    assert len(word_shingles("one two three four five six seven")) == 3
    assert len(word_shingles("one two three")) == 1 and len(word_shingles(" ... ")) == 0


def test_scripts_without_spaces_are_taken_by_the_character():
    assert len(word_shingles("中华人民共和国")) == 3
    assert len(word_shingles("中华 abc 人民 def")) == 2
    assert len(word_shingles("カタカナひらがな")) == 4


@given(st.text(), st.integers(1, 6))
def test_as_many_shingles_as_distinct_runs(text, n):
    runs = {text[i : i + n] for i in range(max(1, len(text) - n + 1))} if text else set()
    found = character_shingles(text, n)
    assert len(found) == len(runs) and np.array_equal(found, np.unique(found))


def test_the_hashes_are_the_same_in_every_process():
    code = "from cptjax.selection.shingles import word_shingles; print(word_shingles('a b c d e f').tolist())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(word_shingles("a b c d e f").tolist())


def test_a_store_is_whole_within_its_limit_and_an_even_sample_beyond():
    generator = np.random.default_rng(0)
    sets = [np.unique(generator.integers(0, 2**63, 1000, dtype=np.uint64)) for _ in range(40)]
    whole, part = ShingleStore(10**6), ShingleStore(5_000)
    for each in sets:
        whole.add(each)
        part.add(each)
    assert whole.modulus == 1 and all(np.array_equal(a, b) for a, b in zip(whole.sets, sets, strict=True))
    assert part.modulus == 8 and sum(map(len, part.sets)) <= 5_000
    for kept, each in zip(part.sets, sets, strict=True):
        assert np.array_equal(kept, each[each % np.uint64(8) == 0])


_ALONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")  # what a word is, said in another way


@given(
    st.text(st.one_of(st.characters(), st.sampled_from("ab _-\n中가ア・é\u0301\u200d")), max_size=80), st.integers(1, 5)
)
def test_words_are_runs_of_word_characters(text, n):
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    distinct = {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()
    assert len(word_shingles(text, n)) == len(distinct)
