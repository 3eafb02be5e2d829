"""Vocabularies of our own: nothing is lost, the ids are those of transformers, the same text gives the same bytes."""

import functools
import itertools
import json

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data import tokenizer_sample
from cptjax.data.sources import documents, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizer_folder import tokenizer_files
from cptjax.data.tokenizer_sample import sample_fractions, survey
from cptjax.data.tokenizer_training import SPECIAL, TokenizerSettings, sentences, train_vocabulary
from cptjax.errors import ConfigurationError

ODD = [
    "",
    "a",
    " a",
    "  a b ",
    "def f(x):\n    return x\n\n\tif y:  # é",
    "😀 e\u0301 \u200b",
    "</s>",
    "x</s> y",
    " <s>",
    "a\r\nb",
    "\n",
    "   ",
    "1234 5",
    "\u0000z",
    "中文 한국어",
    "<0x0A>",
    "a<0x0A><0xFF>b",
    "<unk>",
    "<s>a</s> <s> b",
    "  </s>  ",
    "\t\tx\t",
    "trailing  ",
    "\n\n\n  x\n",
    "\u2585",
    "\ufeffx",
    "👩‍👩‍👧 🇩🇪",
]


def trained(folder, where, vocabulary, kind):
    """The tokenizer of a small vocabulary, in its folder."""
    model, _ = train_vocabulary(surveyed(where), TokenizerSettings(vocabulary, kind))
    for name, content in tokenizer_files(model, kind).items():
        (folder / name).write_bytes(content)
    return open_tokenizer(str(folder))


def surveyed(*where):
    return list(survey(find_source(f"s{n}", one) for n, one in enumerate(where)))


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request, tmp_path_factory):
    return trained(tmp_path_factory.mktemp(request.param), "python:source#3e5", 600, request.param)


@functools.cache
def texts():
    code = [document.text for document in documents(find_source("x", "python:source#2e5"))]
    return ODD + [text.replace("\u2581", " ") for text in code]


def test_every_text_comes_back_as_it_was(tokenizer):
    assert (tokenizer.size, tokenizer.bos, tokenizer.eos, tokenizer.adds_bos) == (600, 1, 2, True)
    for text in texts():
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_any_text_comes_back_but_for_sentencepieces_own_space(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ")


def test_the_ids_are_those_of_transformers(tokenizer):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tokenizer.name)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id) == (1, 2, 0)
    for text in texts():
        ids = tokenizer.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids, repr(text)
        assert theirs(text)["input_ids"] == [1, *ids]
        assert theirs.decode(ids) == text


def test_the_ids_are_those_of_sentencepiece(tokenizer):
    """Of the model alone: what tokenizer.json says of a unigram one is the same."""
    model = sentencepiece.SentencePieceProcessor(model_file=f"{tokenizer.name}/tokenizer.model")
    for text in texts():
        if not any(token in text for token in SPECIAL.values()):
            assert model.encode(text) == tokenizer.encode(text), repr(text)


def test_line_breaks_and_indentation_are_parts_of_pieces(tokenizer):
    assert len(tokenizer.encode("\n\n    ")) <= 2 and len(tokenizer.encode("):\n")) <= 2
    assert len(tokenizer.encode("2048")) == 4  # a piece a digit


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_same_text_gives_the_same_bytes(kind):
    settings = TokenizerSettings(500, kind, temperature=2.0, sample_bytes=150_000)
    first, second = (
        train_vocabulary(surveyed("python:source#2e5", "python:documentation#2e5"), settings) for _ in range(2)
    )
    assert first == second
    for counted in first[1].values():
        assert 20_000 < counted["sampled_bytes"] < counted["bytes"]


@given(st.text(st.sampled_from("ab \n"), max_size=60_000), st.integers(0, 20_000))
def test_sentences_hold_all_of_a_text_in_parts_that_sentencepiece_takes(text, width):
    text += "\n" + "é" * width + "\n"
    parts = list(sentences(text))
    assert "".join(parts) == text and all(0 < len(part) <= 4096 for part in parts)
    for part, following in itertools.pairwise(parts):
        assert following.startswith("\n") or "\n" not in part[1:]


def test_what_sentencepiece_reserves_takes_no_text_with_it(tmp_path):
    """It drops a sentence with U+2585 whole, and ends one at a zero byte."""
    path = tmp_path / "x.txt"
    path.write_text("plain words here\n" + "xyzzy \u2585 xyzzy\n" * 50 + "a\0plugh plugh\n" * 50, encoding="utf-8")
    tokenizer = trained(tmp_path, str(path), 310, "bpe")
    for word in ("xyzzy", "plugh", "▁xyzzy"):
        assert len(tokenizer.encode(word.replace("▁", " "))) == 1, word
    assert tokenizer.decode(tokenizer.encode("\u2585\0")) == "\u2585\0"


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 10**9), min_size=1),
    st.floats(1, 100),
    st.one_of(st.none(), st.integers(1, 10**8)),
)
def test_samples_keep_the_shares_that_the_temperature_says_within_the_budget(sizes, temperature, budget):
    fractions = sample_fractions(sizes, temperature, budget)
    taken = {name: fraction * sizes[name] for name, fraction in fractions.items()}
    assert all(0 < fraction <= 1 for fraction in fractions.values())
    assert budget is None or sum(taken.values()) <= budget * (1 + 1e-9)
    weights = {name: size ** (1 / temperature) for name, size in sizes.items()}
    for name in sizes:
        assert taken[name] / sum(taken.values()) == pytest.approx(weights[name] / sum(weights.values()), rel=1e-6)


def test_a_sample_is_a_part_that_depends_on_the_seed_and_not_on_what_is_held(monkeypatch):
    [read] = surveyed("python:documentation#1e6")
    half, other = ([document.name for document in read.sampled(0.5, seed)] for seed in (0, 1))
    everything = [document.name for document in documents(read.source)]
    assert set(half) < set(everything) and 0.3 < len(half) / len(everything) < 0.7 and half != other
    assert [document.name for document in read.sampled(1.0, 0)] == everything
    assert (read.documents, len(read.held)) == (len(everything), len(everything))
    monkeypatch.setattr(tokenizer_sample, "_HELD", read.bytes - 1)
    [again] = surveyed("python:documentation#1e6")
    assert again.held is None and again.examples == read.examples
    assert [document.name for document in again.sampled(0.5, 0)] == half


def test_examples_come_from_all_over_a_source(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": str(n)}) + "\n" for n in range(2000)))
    [read] = surveyed(str(path))
    drawn = [int(document.text) for document in read.examples]
    assert len(set(drawn)) == 200 and 850 < sum(drawn) / 200 < 1150


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"vocabulary": 100}, "at least 260"),
        ({"vocabulary": 300, "kind": "wordpiece"}, "KIND"),
        ({"vocabulary": 300, "temperature": 0.5}, "TEMPERATURE"),
        ({"vocabulary": 300, "coverage": 0.0}, "COVERAGE"),
    ],
)
def test_wrong_settings_are_refused(settings, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        TokenizerSettings(**settings)


def test_a_size_that_the_text_cannot_have_is_refused_with_one_it_can(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"text": "abc abd " * 20}) + "\n")
    for kind in ("bpe", "unigram"):
        with pytest.raises(ConfigurationError, match="VOCABULARY = 5000 is more than this text can fill"):
            train_vocabulary(surveyed(str(path)), TokenizerSettings(5000, kind))
    path.write_text(json.dumps({"text": "".join(map(chr, range(0x4E00, 0x4F00)))}) + "\n")
    with pytest.raises(ConfigurationError, match="is too small"):
        train_vocabulary(surveyed(str(path)), TokenizerSettings(270))


def test_an_empty_source_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n")
    with pytest.raises(ConfigurationError, match="source 's0' is empty"):
        surveyed(str(path))
