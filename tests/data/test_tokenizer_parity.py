"""The ids of `transformers`, for every kind of tokenizer that a checkpoint comes with, on any text."""

import pytest
from hypothesis import given, settings
from tokenizer_folders import ODD_TEXTS
from tokenizer_kinds import ATOMS, every_kind, hard_texts

from cptjax.data.tokenizer import open_tokenizer

transformers = pytest.importorskip("transformers", reason="parity is with transformers, on Python 3.11")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folders = every_kind(tmp_path_factory.mktemp("kinds"), transformers)
    return {
        kind: (transformers.AutoTokenizer.from_pretrained(str(folder)), open_tokenizer(str(folder)))
        for kind, folder in folders.items()
    }


def test_odd_texts_and_parts_of_them_have_the_ids_of_transformers(pairs):
    texts = [*ODD_TEXTS, *ATOMS, *(f" {atom}a {atom} " for atom in ATOMS), *(f"{atom}{atom}" for atom in ATOMS)]
    for kind, (theirs, ours) in pairs.items():
        wanted = theirs(texts, add_special_tokens=False).input_ids
        for text, ids, found in zip(texts, wanted, ours.encode_batch(texts), strict=True):
            assert found == ids, (kind, text)


def test_any_text_has_the_ids_of_transformers(pairs):
    @given(hard_texts)
    @settings(max_examples=150, deadline=None)
    def check(text):
        for kind, (theirs, ours) in pairs.items():
            assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids, kind

    check()


def test_bos_and_eos_are_those_of_transformers(pairs):
    for kind, (theirs, ours) in pairs.items():
        assert (ours.bos, ours.eos) == (theirs.bos_token_id, theirs.eos_token_id), kind
