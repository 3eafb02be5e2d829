"""What tokens stand for, and how one vocabulary follows from another: the same bytes are the same token, whoever writes them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_folders import LLAMA_CLASS, SENTENCES, byte_level_folder, qwen2_folder, sentencepiece_folder
from tokenizer_kinds import wordpiece_source, write

from cptjax.data.special_ids import moved_ids
from cptjax.data.token_contents import Token, Vocabulary, vocabulary_of
from cptjax.data.token_similarity import similar_tokens, sparsemax
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizer_folder import tokenizer_files
from cptjax.data.tokenizer_training import TokenizerSettings, _train, sentences
from cptjax.data.vocabulary_change import counts, describe_change
from cptjax.data.vocabulary_mapping import map_vocabulary, split_contents
from cptjax.errors import ConfigurationError


def our_own(folder, kind):
    """What the job train_tokenizer writes."""
    folder.mkdir()
    model = _train(iter([part for text in SENTENCES for part in sentences(text)]), TokenizerSettings(380, kind))
    for name, content in tokenizer_files(model, kind).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A tokenizer of each kind."""
    root = tmp_path_factory.mktemp("kinds")
    folders = {
        "byte_level": byte_level_folder(root / "byte_level"),
        "qwen2": qwen2_folder(root / "qwen2"),
        "llama": sentencepiece_folder(root / "llama", LLAMA_CLASS),
        "ours": our_own(root / "ours", "bpe"),
        "ours_unigram": our_own(root / "ours_unigram", "unigram"),
    }
    return {name: open_tokenizer(str(folder)) for name, folder in folders.items()}


KINDS = ("byte_level", "qwen2", "llama", "ours", "ours_unigram")


@pytest.mark.parametrize("kind", KINDS)
def test_the_contents_of_a_texts_tokens_are_its_bytes(kind, opened):
    tokenizer, vocabulary = opened[kind], vocabulary_of(opened[kind])
    assert len(vocabulary.tokens) == tokenizer.size and None not in vocabulary.tokens
    for text in [*SENTENCES[:6], "naïve 日本 😀", "tabs\t\tand  spaces"]:
        ids = tokenizer.encode(text)
        assert not any(vocabulary.tokens[i].special for i in ids)
        written = b"".join(vocabulary.tokens[i].content for i in ids)
        # SentencePiece with a dummy prefix puts a space before a text.
        assert written.removeprefix(b" ") == text.encode().removeprefix(b" "), text
        assert kind == "llama" or written == text.encode()
    for role, own in (("bos", tokenizer.bos), ("eos", tokenizer.eos)):
        assert own is None or (vocabulary.roles[role] == own and vocabulary.tokens[own].special)


def test_tokens_that_do_not_say_what_they_stand_for_are_refused(tmp_path):
    folder = write(tmp_path / "wordpiece", tokenizer=wordpiece_source())
    with pytest.raises(ConfigurationError, match="do not say what text they stand for .WordPiece"):
        vocabulary_of(open_tokenizer(str(folder)))


@pytest.mark.parametrize("old, new", [(a, b) for a in KINDS for b in ("byte_level", "llama", "ours_unigram")])
def test_copies_stand_for_the_same_and_pieces_for_just_the_tokens_bytes(old, new, opened):
    before, after = vocabulary_of(opened[old]), vocabulary_of(opened[new])
    mapping = map_vocabulary(before, after, opened[old].encode_batch)
    texts = {token.content for token in before.tokens if not token.special}
    for i, token in enumerate(after.tokens):
        if mapping.copied[i] >= 0:
            copy = before.tokens[mapping.copied[i]]
            same_role = {r for r, n in after.roles.items() if n == i} and copy.special
            assert not mapping.pieces[i] and (copy.content == token.content or same_role)
        else:
            assert token.special or token.content not in texts, "an old token was overlooked"
            assert mapping.pieces[i], "both have all bytes"
            assert b"".join(before.tokens[p].content for p in mapping.pieces[i]) == token.content
    if old == new:
        assert mapping.copied.tolist() == list(range(len(after.tokens))) and not len(mapping.dropped)
        assert not any(
            "warning" in line for line in describe_change(before, after, mapping, opened[old], opened[new], 999)
        )
    assert after.roles["eos"] in mapping.new_ids.values() and mapping.new_ids[before.roles["eos"]] == after.roles["eos"]
    found = counts(mapping)
    assert found["copied"] + found["made"] == found["new_tokens"] == len(after.tokens)


CONTENTS = st.lists(st.text("ab é中", min_size=1, max_size=5).map(str.encode), unique=True, max_size=12)


@given(CONTENTS, CONTENTS, st.booleans())
@settings(max_examples=60)
def test_the_mapping_of_any_two_vocabularies(old, new, with_bytes):
    singles = [bytes([byte]) for byte in range(256)] if with_bytes else []
    before = Vocabulary(tuple([Token(c) for c in old] + [Token(c, is_byte=True) for c in singles]), {})
    after = Vocabulary(tuple(Token(c) for c in new), {})

    def characters(texts):  # a tokenizer that knows only what is a single character, and reads "?" otherwise: id 0
        ids = {token.content: i for i, token in enumerate(before.tokens)}
        return [[ids.get(c.encode(), 0) for c in text] if before.tokens else [] for text in texts]

    mapping = map_vocabulary(before, after, characters)
    for i, content in enumerate(new):
        if content in old or content in singles:
            assert before.tokens[mapping.copied[i]].content == content
            assert content not in old or not before.tokens[mapping.copied[i]].is_byte
        else:
            assert mapping.copied[i] == -1
            joined = b"".join(before.tokens[p].content for p in mapping.pieces[i])
            assert joined == content or not with_bytes
    assert set(mapping.dropped) == {i for i in mapping.known if i not in mapping.copied}


def test_a_token_at_the_beginning_of_a_word_is_not_split_as_a_text_is(opened):
    """Where a prefix is put before texts, the text of a token without a space must not get one."""
    vocabulary = vocabulary_of(opened["llama"])
    for content in (b"here", b"ermann", b" ther", "国家".encode()):
        (pieces,) = split_contents([content], vocabulary, opened["llama"].encode_batch)
        assert b"".join(vocabulary.tokens[p].content for p in pieces) == content
    half = "中".encode()[:2]  # no text: the bytes
    (pieces,) = split_contents([half], vocabulary, opened["llama"].encode_batch)
    assert [vocabulary.tokens[p] for p in pieces] == [Token(half[:1], is_byte=True), Token(half[1:], is_byte=True)]


def test_a_token_without_merges_is_told_of(opened, tmp_path):
    source = opened["byte_level"].encoder.source()
    size = len(source["model"]["vocab"])
    source["model"]["vocab"]["igkeitenundso"] = size
    declared = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
    }
    new = open_tokenizer(str(write(tmp_path / "added", tokenizer=source, tokenizer_config=declared)))
    before, after = vocabulary_of(opened["byte_level"]), vocabulary_of(new)
    mapping = map_vocabulary(before, after, opened["byte_level"].encode_batch)
    assert mapping.made.tolist() == [size]
    lines = describe_change(before, after, mapping, opened["byte_level"], new, size + 5)
    assert any("warning: 1 new tokens" in line for line in lines)
    assert any("5 rows of the checkpoint that are no token's" in line for line in lines)


def test_text_that_is_split_otherwise_is_told_of(opened):
    """The old tokenizer puts a space before a text, the new one does not."""
    before, after = vocabulary_of(opened["llama"]), vocabulary_of(opened["ours"])
    mapping = map_vocabulary(before, after, opened["llama"].encode_batch)
    (line,) = [
        n for n in describe_change(before, after, mapping, opened["llama"], opened["ours"], 1) if "otherwise" in n
    ]
    assert "copied tokens are split otherwise now, first" in line


def test_ids_in_settings_are_moved_or_left_out():
    roles, new_ids = {"bos": 7, "eos": 8}, {2: 8, 5: 50}
    moved, left_out = moved_ids(
        {
            "vocab_size": 9,
            "eos_token_id": [2, 5, 6],
            "pad_token_id": 3,
            "sep_token_id": 5,
            "suppress_tokens": [4],
            "top_p": 0.9,
        },
        roles,
        new_ids,
    )
    assert moved == {
        "vocab_size": 9,
        "bos_token_id": 7,
        "eos_token_id": [8, 50],
        "pad_token_id": None,
        "sep_token_id": 50,
        "top_p": 0.9,
    }
    assert left_out == ["pad_token_id", "suppress_tokens"]


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9))
def test_sparsemax_is_the_nearest_point_of_the_simplex(scores):
    scores = np.array(scores)
    weights = sparsemax(scores)
    assert abs(weights.sum() - 1) < 1e-9 and weights.min() >= 0
    # The conditions of Karush, Kuhn and Tucker: one threshold, above which all are that much lower, below which all are 0.
    threshold = (scores - weights)[weights > 0]
    assert np.ptp(threshold) < 1e-9 and (scores[weights == 0] <= threshold[0] + 1e-9).all()


def test_tokens_are_alike_that_share_rare_parts():
    others = [b" import", b" importer", b" the", b"zzz", b"export"]
    (near, weights), (none, _), (same, alone) = similar_tokens([b" imports", "中".encode(), b"zzz"], others)
    assert set(near) <= {0, 1, 2, 4} and near[weights.argmax()] == 0 and abs(weights.sum() - 1) < 1e-9
    assert len(none) == 0
    assert same.tolist() == [3] and alone.tolist() == [1.0]
