"""Vocabularies of our own: nothing is lost, the ids are those of transformers, the same text gives the same bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.sources import documents, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizer_training import CONFIG, TokenizerSettings, sample_fractions, sampled, train_vocabulary
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
]


def silent(line):
    pass


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def trained(request, tmp_path_factory):
    """The folder of a small tokenizer of code and prose."""
    folder = tmp_path_factory.mktemp(request.param)
    sources = [find_source("code", "python:source#3e5"), find_source("prose", "python:documentation#3e5")]
    settings = TokenizerSettings(600, kind=request.param)
    model, counted = train_vocabulary(sources, settings, silent)
    assert train_vocabulary(sources, settings, silent) == (model, counted)
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    return folder


def texts():
    return ODD + [document.text for document in documents(find_source("x", "python:source#1e5"))]


def test_every_text_comes_back_as_it_was(trained):
    tokenizer = open_tokenizer(str(trained))
    assert (tokenizer.size, tokenizer.bos, tokenizer.eos, tokenizer.adds_bos) == (600, 1, 2, True)
    for text in texts():
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_any_text_comes_back_but_for_sentencepieces_own_space(trained_bpe, text):
    assert trained_bpe.decode(trained_bpe.encode(text)) == text.replace("\u2581", " ")


@pytest.fixture(scope="module")
def trained_bpe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    model, _ = train_vocabulary([find_source("x", "python:source#1e5")], TokenizerSettings(400), silent)
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    return open_tokenizer(str(folder))


def test_the_ids_are_those_of_transformers(trained_bpe):
    transformers = pytest.importorskip("transformers")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(trained_bpe.name), trained_bpe
    for text in texts():
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text), repr(text)
        assert theirs(text)["input_ids"] == [ours.bos, *ours.encode(text)]


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 10**9), min_size=1),
    st.floats(1, 100),
    st.one_of(st.none(), st.integers(1, 10**8)),
)
def test_samples_keep_the_shares_that_the_temperature_says_within_the_budget(sizes, temperature, budget):
    settings = TokenizerSettings(300, temperature=temperature, sample_bytes=budget)
    taken = {name: fraction * sizes[name] for name, fraction in sample_fractions(sizes, settings).items()}
    assert all(0 < fraction <= 1 for fraction in sample_fractions(sizes, settings).values())
    assert budget is None or sum(taken.values()) <= budget * (1 + 1e-9)
    weights = {name: size ** (1 / temperature) for name, size in sizes.items()}
    for name in sizes:
        assert taken[name] / sum(taken.values()) == pytest.approx(weights[name] / sum(weights.values()), rel=1e-6)


def test_a_sample_is_a_part_that_depends_on_the_seed():
    source = find_source("x", "python:documentation#1e6")
    half, other = ({document.name for document in sampled(source, 0.5, seed)} for seed in (0, 1))
    everything = {document.name for document in documents(source)}
    assert half < everything and 0.3 < len(half) / len(everything) < 0.7 and half != other
    assert {document.name for document in sampled(source, 1.0, 0)} == everything


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
            train_vocabulary([find_source("x", str(path))], TokenizerSettings(5000, kind), silent)
    path.write_text(json.dumps({"text": "".join(map(chr, range(0x4E00, 0x4F00)))}) + "\n")
    with pytest.raises(ConfigurationError, match="is too small"):
        train_vocabulary([find_source("x", str(path))], TokenizerSettings(270), silent)


def test_an_empty_source_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n")
    with pytest.raises(ConfigurationError, match="source 'x' is empty"):
        train_vocabulary([find_source("x", str(path))], TokenizerSettings(300), silent)
