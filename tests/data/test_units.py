"""Units: a document's passages are its text again, its tokens are theirs, and what is kept on disk is what was made."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_folders import ODD_TEXTS, SENTENCES

from cptjax.data.sources import find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.units import PASSAGES, make_units, passages
from cptjax.errors import ConfigurationError, CptjaxError


@pytest.fixture(scope="module")
def tokenizers(byte_level, qwen2, llama):
    return {
        name: open_tokenizer(str(folder)) for name, folder in (("byte", byte_level), ("qwen2", qwen2), ("llama", llama))
    }


@pytest.mark.parametrize("kind", ["byte", "qwen2", "llama"])
@pytest.mark.parametrize("most", [1, 3, 7])
def test_passages_are_the_text_again_whatever_is_in_it(tokenizers, kind, most):
    tokenizer = tokenizers[kind]
    for text in [*SENTENCES[:6], *ODD_TEXTS, "中文" * 9 + "😀" * 5]:
        ids = tokenizer.encode(text)
        cuts = list(passages(text, ids, tokenizer, most))
        assert "".join(text[begin:end] for _, _, begin, end in cuts) == text
        assert [first for first, *_ in cuts] == [0, *(last for _, last, *_ in cuts[:-1])]
        assert cuts[-1][1] == len(ids)
        assert all(
            last - first < most + 8 for first, last, *_ in cuts
        )  # one character may have more tokens than a passage


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=4), st.integers(1, 40))
@settings(max_examples=25)
def test_a_passage_of_plain_text_is_what_its_tokens_say(tokenizers, sentences, most):
    text, tokenizer = " ".join(sentences), tokenizers["byte"]
    ids = tokenizer.encode(text)
    for first, last, begin, end in passages(text, ids, tokenizer, most):
        assert tokenizer.decode(ids[first:last]) == text[begin:end]


@pytest.mark.parametrize("unit", ["documents", PASSAGES])
def test_units_name_their_document_and_tokens_and_are_found_again(tokenizers, tmp_path, unit):
    path = tmp_path / "text.jsonl"
    texts = {"a": SENTENCES[0], "b": "x", "c": SENTENCES[3]}
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    source, tokenizer = find_source("text", str(path)), tokenizers["byte"]
    units = make_units(source, tokenizer, unit, 8, tmp_path / "units")
    by_document = {}
    for i, text in enumerate(units.texts()):
        by_document.setdefault(units.names[units.document[i]], []).append(text)
        assert units.bytes[i] == len(text.encode())
    assert {name: "".join(parts) for name, parts in by_document.items()} == texts
    assert np.concatenate(list(units.token_sequences(range(len(units))))).tolist() == sum(
        map(tokenizer.encode, texts.values()), []
    )
    assert units.id(0) == ("a" if unit == "documents" else "a#0-8")
    assert (units.sizes <= 8).all() or unit == "documents"
    again = make_units(source, tokenizer, unit, 8, tmp_path / "units")
    assert list(again.texts()) == list(units.texts()) and np.array_equal(again.sizes, units.sizes)
    # Without a tokenizer a document's size is its bytes.
    assert make_units(source, None, "documents", 8, tmp_path / "plain").sizes.tolist() == [
        len(t.encode()) for t in texts.values()
    ]
    with pytest.raises(ConfigurationError, match="units of another corpus, or cut otherwise"):
        make_units(source, tokenizer, PASSAGES, 9, tmp_path / "units", "another text")
    path.write_text(path.read_text().replace('"b"', '"z"'))
    with pytest.raises(CptjaxError, match="has changed since this selection began"):
        list(units.texts())


def test_what_cuts_no_units_is_refused(tokenizers, tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    source = find_source("text", str(tmp_path / "empty.jsonl"))
    with pytest.raises(ConfigurationError, match="INPUT is empty"):
        make_units(source, None, "documents", 8, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigurationError, match="needs to know what a token is"):
        make_units(source, None, PASSAGES, 8, tmp_path / "out")
    with pytest.raises(ConfigurationError, match="UNIT = 'lines'"):
        make_units(source, None, "lines", 8, tmp_path / "out")
