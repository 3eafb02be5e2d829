"""Vocabularies of our own: nothing is lost, the ids are those of transformers, the same text gives the same bytes."""

import functools
import importlib.util
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
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


def standard_library(path, *modules):
    """A source that no installed package changes: modules of Python itself, a document a paragraph or more."""
    with path.open("w", encoding="utf-8") as file:
        for name in modules:
            paragraphs = Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8").split("\n\n\n")
            file.writelines(json.dumps({"text": text}) + "\n" for text in paragraphs if text.strip())
    return str(path)


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
    folder = tmp_path_factory.mktemp(request.param)
    where = standard_library(folder / "text.jsonl", "argparse", "inspect", "typing")
    return trained(folder, where, 600, request.param)


@functools.cache
def texts():
    modules = ("ast", "difflib", "pdb", "shutil", "tarfile", "textwrap", "turtle", "zipfile", "unicodedata")
    found = [importlib.util.find_spec(name).origin for name in modules]
    code = [Path(path).read_text(encoding="utf-8") for path in found if path and path.endswith(".py")]
    return [*ODD, *code, "\n".join(code)]


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
    """Of the model alone: what tokenizer.json says of a unigram one is the same, but for ties (`check_the_same_or_tied`)."""
    model = sentencepiece.SentencePieceProcessor(model_file=f"{tokenizer.name}/tokenizer.model")
    for text in texts():
        if not any(token in text for token in SPECIAL.values()):
            check_the_same_or_tied(model, tokenizer, text)


def test_the_scores_of_a_unigram_folder_are_the_models_own(tokenizer):
    """Written as decimals they are still the same float32 numbers."""
    path, model = Path(tokenizer.name, "tokenizer.json"), sentencepiece.SentencePieceProcessor()
    if path.exists():
        model.load(f"{tokenizer.name}/tokenizer.model")
        for i, (piece, score) in enumerate(json.loads(path.read_text())["model"]["vocab"]):
            assert piece == model.id_to_piece(i) and (model.is_byte(i) or score == model.get_score(i))


indented = st.lists(
    st.one_of(
        st.integers(0, 40).map(lambda spaces: "\n" + " " * spaces),
        st.sampled_from(["else", "return", ":", "))", "é中", "====", "x" * 7]),
    ),
    max_size=60,
).map("".join)


@given(indented, st.sampled_from([0, 60_000]))
@settings(max_examples=40, deadline=None)
def test_where_sentencepiece_has_other_ids_two_segmentations_have_the_same_score(tokenizer, text, before):
    """The further into a text, the coarser its running float32 score, and the more are equal."""
    model = sentencepiece.SentencePieceProcessor(model_file=f"{tokenizer.name}/tokenizer.model")
    check_the_same_or_tied(model, tokenizer, "\n".join(texts()[len(ODD) :])[:before] + text)


def check_the_same_or_tied(model, tokenizer, text):
    """Two segmentations differ only where SentencePiece's float32 sums cannot tell which is the better one.

    Viterbi's search adds a piece's score to that of the text before it. `tokenizers` adds in float64, so its choice is the better
    one or one of several best. SentencePiece adds in float32, each time rounding by half a unit in the last place of the sum.
    """
    ours, theirs = tokenizer.encode(text), model.encode(text)
    if ours == theirs:
        return
    assert Path(tokenizer.name, "tokenizer.json").exists(), "BPE adds nothing, so nothing is tied"
    normal = [i for i in range(model.get_piece_size()) if not model.is_byte(i) and not model.is_control(i) and i]
    unknown = min(map(model.get_score, normal)) - 10  # of a character that is written as bytes

    def score(i):
        return unknown if model.is_byte(i) else model.get_score(i)

    def ends(ids):
        sizes = [1 if model.is_byte(i) else len(model.id_to_piece(i).encode()) for i in ids]
        return dict(zip(itertools.accumulate(sizes), itertools.count(1)))

    ends_ours, ends_theirs = ends(ours), ends(theirs)
    sums = list(itertools.accumulate(map(score, ours)))
    begin_ours = begin_theirs = 0
    for place in sorted(ends_ours.keys() & ends_theirs.keys()):
        span, other = ours[begin_ours : ends_ours[place]], theirs[begin_theirs : ends_theirs[place]]
        better = math.fsum([*map(score, span), *(-score(i) for i in other)])
        rounding = (len(span) + len(other)) / 2 * abs(float(np.spacing(np.float32(sums[ends_ours[place] - 1]))))
        assert span == other or -1e-9 <= better <= rounding, (text[:100], place, better, rounding)
        begin_ours, begin_theirs = ends_ours[place], ends_theirs[place]
    assert (begin_ours, begin_theirs) == (len(ours), len(theirs))


def test_line_breaks_and_indentation_are_parts_of_pieces(tokenizer):
    assert len(tokenizer.encode("\n\n    ")) <= 2 and len(tokenizer.encode("):\n")) <= 2
    assert len(tokenizer.encode("2048")) == 4  # a piece a digit


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_same_text_gives_the_same_bytes(kind, tmp_path):
    asked = TokenizerSettings(500, kind, temperature=2.0, sample_bytes=150_000)
    large = standard_library(tmp_path / "large.jsonl", "argparse", "inspect", "typing")
    small = standard_library(tmp_path / "small.jsonl", "ast", "difflib")
    first, second = (train_vocabulary(surveyed(large, small), asked) for _ in range(2))
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


def test_a_sample_is_a_part_that_depends_on_the_seed_and_not_on_what_is_held(monkeypatch, tmp_path):
    where = standard_library(tmp_path / "x.jsonl", "argparse", "inspect", "typing", "ast", "difflib", "pdb")
    [read] = surveyed(where)
    half, other = ([document.name for document in read.sampled(0.5, seed)] for seed in (0, 1))
    everything = [document.name for document in documents(read.source)]
    assert set(half) < set(everything) and 0.3 < len(half) / len(everything) < 0.7 and half != other
    assert [document.name for document in read.sampled(1.0, 0)] == everything
    assert (read.documents, len(read.held)) == (len(everything), len(everything))
    monkeypatch.setattr(tokenizer_sample, "_HELD", read.bytes - 1)
    [again] = surveyed(where)
    assert again.held is None and again.examples == read.examples
    assert [document.name for document in again.sampled(0.5, 0)] == half


def test_examples_come_from_all_over_a_source(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": str(n)}) + "\n" for n in range(2000)))
    [read] = surveyed(str(path))
    drawn = [int(document.text) for document in read.examples]
    assert len(set(drawn)) == 200 and 850 < sum(drawn) / 200 < 1150


@pytest.mark.parametrize(
    ("given_settings", "complaint"),
    [
        ({"vocabulary": 100}, "at least 260"),
        ({"vocabulary": 300, "kind": "wordpiece"}, "KIND"),
        ({"vocabulary": 300, "temperature": 0.5}, "TEMPERATURE"),
        ({"vocabulary": 300, "coverage": 0.0}, "COVERAGE"),
    ],
)
def test_wrong_settings_are_refused(given_settings, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        TokenizerSettings(**given_settings)


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
