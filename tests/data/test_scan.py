"""The scan of a source: groups are whole on either side, counted, and sampled where memory is bounded."""

import functools
import json
from importlib import import_module

import numpy as np
import pytest

from cptjax.data.prepare import ensure_rows
from cptjax.data.scan import load_survey, save_survey, scan, survey
from cptjax.data.signs import Asked, Signs, read_signs, write_signs
from cptjax.data.sources import Source, find_source
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.errors import CptjaxError

FAMILIES, COPIES = 40, 3


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    """40 texts of 400 words in three versions that differ in a word, one after another, and 80 texts with no like."""
    generator = np.random.default_rng(0)
    texts = []
    for _ in range(FAMILIES):
        words = generator.integers(0, 5000, 400).tolist()
        texts += [" ".join(map(str, [*words[:200], f"version{i}", *words[200:]])) for i in range(COPIES)]
    texts += [" ".join(map(str, generator.integers(0, 5000, 400))) for _ in range(80)]
    path = tmp_path_factory.mktemp("scan") / "versions.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return find_source("versions", str(path))


@pytest.fixture
def tokenizer(byte_level) -> Tokenizer:
    return open_tokenizer(str(byte_level))


def sides(held_out: np.ndarray) -> set[tuple[bool, ...]]:
    """What befell the versions of each text."""
    return {tuple(family) for family in held_out[: FAMILIES * COPIES].reshape(FAMILIES, COPIES).tolist()}


def test_versions_of_a_text_are_held_out_together_or_not_at_all(source, tokenizer):
    found = scan(source, tokenizer, SplitSettings(0.3, 10**9))
    assert sides(found.held_out) == {(True,) * COPIES, (False,) * COPIES}
    assert found.grouping == {"groups": FAMILIES + 80, "documents_in_groups": FAMILIES * COPIES, "one_shingle_in": 1}


def test_texts_without_a_like_keep_their_side_whatever_is_asked_of_others(source, tokenizer):
    together, apart = (scan(source, tokenizer, SplitSettings(0.3, 10**9, asked)) for asked in (0.7, None))
    assert (together.held_out == apart.held_out)[FAMILIES * COPIES :].all()
    assert len(sides(apart.held_out)) > 2  # without it, versions stand on both sides
    assert apart.grouping == {"groups": FAMILIES * COPIES + 80, "documents_in_groups": 0, "one_shingle_in": 0}


def test_groups_are_found_by_a_sample_where_memory_does_not_hold_all(source, tokenizer, monkeypatch):
    module = import_module("cptjax.data.scan")
    monkeypatch.setattr(module, "ShingleStore", functools.partial(module.ShingleStore, 20_000))
    found = scan(source, tokenizer, SplitSettings(0.3, 10**9))  # of 79,000 distinct shingles in all texts
    assert found.grouping["one_shingle_in"] == 4 and found.grouping["groups"] == FAMILIES + 80
    assert sides(found.held_out) == {(True,) * COPIES, (False,) * COPIES}


def test_where_nothing_is_held_out_nothing_is_tokenized(source, tokenizer, monkeypatch):
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: pytest.fail(text))
    assert not scan(source, tokenizer, SplitSettings(0.0)).held_out.any()


def test_a_survey_comes_back_from_its_file(source, tokenizer, tmp_path):
    assert load_survey(tmp_path) is None
    save_survey(found := survey(source, tokenizer), tmp_path)
    assert load_survey(tmp_path) == found and len(found.names) == FAMILIES * COPIES + 80


def test_signs_come_back_from_their_file_and_a_damaged_one_is_named(tmp_path):
    exam = tmp_path / "exam.jsonl"
    question = "which of these courts held that the clause was void for want of form in law"
    exam.write_text(json.dumps({"question": question, "choices": ["a", "b"], "answer": 0}) + "\n")
    texts = ["", "one", f"They asked: {question} a", "the court " * 50, "中华人民共和国"]
    for asked in (Asked(), Asked(True), Asked(True, (str(exam),))):
        signs = Signs(asked)
        found = [signs.of(text) for text in texts]
        write_signs(tmp_path / "signs", found)
        for back, one in zip(read_signs(tmp_path / "signs"), found, strict=True):
            assert back.same == one.same
            assert (back.shingles == one.shingles).all() and (back.items == one.items).all()
    assert [sign.items.tolist() for sign in found] == [[], [], [0], [], []]
    raw = (tmp_path / "signs").read_bytes()
    (tmp_path / "signs").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CptjaxError, match="signs is damaged"):
        read_signs(tmp_path / "signs")


def test_rows_say_how_documents_were_grouped_and_are_others_under_another_similarity(byte_level, tmp_path):
    pytest.importorskip("seqio", reason="needs the `text` extra")
    texts = [f"{' '.join(f'{name}{i}' for i in range(30))} {end}" for name in "abcdef" for end in ("one", "two")]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def rows(near_duplicates):
        settings = {"validation_fraction": 0.3, "near_duplicates": near_duplicates, "report": lambda line: None}
        return ensure_rows({"law": str(path)}, str(byte_level), 32, str(tmp_path / "rows"), **settings)["law"]

    near, same = rows(0.7), rows(None)
    assert near.train != same.train and near == rows(0.7)
    for manifest in (near.train_manifest, near.validation_manifest):
        assert manifest.settings["split"]["near_duplicates"] == 0.7
        assert manifest.settings["grouping"] == {"groups": 6, "documents_in_groups": 12, "one_shingle_in": 1}
        assert manifest.documents % 2 == 0
    assert same.train_manifest.settings["grouping"]["groups"] == 12
