"""What a tokenizer loses of a text is named, and where nothing is named every text comes back."""

import copy
import json

import pytest
from hypothesis import given, settings
from tokenizer_folders import LLAMA_CLASS, byte_level_folder, sentencepiece_folder
from tokenizer_kinds import hard_texts, unigram_source, wordpiece_source, write
from tokenizers import normalizers, pre_tokenizers

from cptjax.data.normalizers import FIRST_SPACE, UNKNOWN, lossy_in_pipeline
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizer_folder import tokenizer_files

GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A byte-level tokenizer.json that loses nothing."""
    return json.loads((byte_level_folder(tmp_path_factory.mktemp("bytes")) / "tokenizer.json").read_text())


def opened(folder, source, **files):
    return open_tokenizer(str(write(folder, tokenizer=source, tokenizer_config=GENERIC, **files)))


def as_json(part):
    return json.loads(part.__getstate__())


@pytest.mark.parametrize(
    ("normalizer", "name", "text"),
    [
        (normalizers.NFC(), "NFC", "e\u0301"),
        (normalizers.NFD(), "NFD", "é"),
        (normalizers.NFKC(), "NFKC", "ﬁ ½"),
        (normalizers.NFKD(), "NFKD", "ﬁ"),
        (normalizers.Lowercase(), "Lowercase", "Once"),
        (normalizers.StripAccents(), "StripAccents", "e\u0301"),
        (normalizers.Strip(), "Strip", " a "),
        (normalizers.Nmt(), "Nmt", "a\u200bb"),
        (normalizers.BertNormalizer(lowercase=False), "BertNormalizer (clean_text)", "a\x00b"),
        (normalizers.Replace("``", '"'), "Replace ('``' by '\"')", "``a``"),
        (normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), "NFKC; Lowercase", "Ⅷ"),
    ],
)
def test_a_normalizer_that_loses_text_is_named(normalizer, name, text, source, tmp_path):
    tokenizer = opened(tmp_path, {**source, "normalizer": as_json(normalizer)})
    assert tokenizer.loses.startswith(name)
    assert tokenizer.decode(tokenizer.encode(text)) != text


@pytest.mark.parametrize(
    ("pre_tokenizer", "name", "text"),
    [
        (pre_tokenizers.WhitespaceSplit(), "WhitespaceSplit", "a  b"),
        (pre_tokenizers.Split("-", "removed"), "Split (what it splits at)", "a-b"),
        (pre_tokenizers.Punctuation("removed"), "Punctuation (what it splits at)", "a,b"),
    ],
)
def test_a_pre_tokenizer_that_loses_text_is_named(pre_tokenizer, name, text, source, tmp_path):
    steps = pre_tokenizers.Sequence([pre_tokenizer, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer = opened(tmp_path, {**source, "pre_tokenizer": as_json(steps)})
    assert tokenizer.loses.startswith(name)
    assert tokenizer.decode(tokenizer.encode(text)) != text


def test_a_space_put_before_every_text_cannot_be_told_from_one_that_was_there(source, llama, tmp_path):
    by_bytes = opened(tmp_path / "b", {**source, "pre_tokenizer": as_json(pre_tokenizers.ByteLevel())})
    for tokenizer in (by_bytes, open_tokenizer(str(llama))):
        assert tokenizer.lossy == (FIRST_SPACE,)
        assert tokenizer.encode(" a") == tokenizer.encode("a")


def test_characters_without_ids_are_lost(source, tmp_path):
    narrow = copy.deepcopy(source)
    narrow["pre_tokenizer"] = None
    tokenizer = opened(tmp_path / "narrow", narrow)
    assert tokenizer.lossy == (UNKNOWN,) and tokenizer.decode(tokenizer.encode("a中")) != "a中"
    words = opened(tmp_path / "words", wordpiece_source())
    assert "BertNormalizer (lowercase)" in words.lossy and UNKNOWN in words.lossy
    assert words.decode(words.encode("Once  upon 😀")) != "Once  upon 😀"


def test_sentencepieces_rules_are_named(tmp_path):
    nmt = sentencepiece_folder(
        tmp_path / "nmt", None, "unigram", normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True
    )
    tokenizer = open_tokenizer(str(nmt))
    assert tokenizer.lossy == ("nmt_nfkc", "remove_extra_whitespaces (repeated spaces, spaces at the ends)")
    assert tokenizer.decode(tokenizer.encode("ﬁ  a")) != "ﬁ  a"
    narrow = sentencepiece_folder(tmp_path / "narrow", None, byte_fallback=False, add_dummy_prefix=False)
    tokenizer = open_tokenizer(str(narrow))
    assert tokenizer.lossy == (UNKNOWN,) and tokenizer.decode(tokenizer.encode("😀")) != "😀"
    tokenizer = opened(tmp_path / "json", unigram_source(tmp_path / "u"))
    assert [name.split(" ")[0] for name in tokenizer.lossy[:2]] == ["Precompiled", "WhitespaceSplit"]
    assert tokenizer.decode(tokenizer.encode("ﬁ  a")) != "ﬁ  a"


def test_spaces_that_a_special_token_takes_up_are_named(source, tmp_path):
    rules = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    config = {**GENERIC, "added_tokens_decoder": {"400": {"content": "<mask>", "lstrip": True, **rules}}}
    folder = write(tmp_path, tokenizer=source, tokenizer_config=config)
    tokenizer = open_tokenizer(str(folder))
    assert tokenizer.loses == 'spaces beside "<mask>"'
    assert tokenizer.decode(tokenizer.encode("a <mask>")) == "a<mask>"


def test_a_step_that_is_not_known_is_named():
    """A later version of `tokenizers` may have it."""
    source = {"model": {"type": "BPE", "vocab": {}}, "normalizer": {"type": "Shuffle"}, "pre_tokenizer": None}
    assert lossy_in_pipeline(source, []) == ("Shuffle", UNKNOWN)


def test_where_nothing_is_named_every_text_comes_back(source, tmp_path):
    plain = sentencepiece_folder(tmp_path / "plain", {**LLAMA_CLASS, "add_prefix_space": False})
    unigram = tmp_path / "unigram"
    trained = sentencepiece_folder(
        tmp_path / "u", None, "unigram", add_dummy_prefix=False, required_chars="<0123456789ABCDEFx>"
    )
    unigram.mkdir()
    for name, content in tokenizer_files((trained / "tokenizer.model").read_bytes(), "unigram").items():
        (unigram / name).write_bytes(content)
    tokenizers = [opened(tmp_path / "bytes", source), open_tokenizer(str(plain)), open_tokenizer(str(unigram))]
    assert [tokenizer.loses for tokenizer in tokenizers] == [None, None, None]

    @given(hard_texts)
    @settings(max_examples=150, deadline=None)
    def check(text):
        text = text.replace("\u2581", " ")
        for tokenizer in tokenizers:
            assert tokenizer.decode(tokenizer.encode(text)) == text

    check()
