"""Of held-out documents what follows a mark is scored: which targets, how many bytes, under both packings."""

import json

import numpy as np
import pytest

from cptjax.data.packing import BEST_FIT, CONCATENATE
from cptjax.data.prepare import ensure_rows
from cptjax.data.rows import RowReader
from cptjax.data.sources import Text, as_plain, find_source, from_plain
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError

MARK = "\nAnswer:"
ANSWERS = ["yes", "the second law, of course", "42", "中华", " because it is long " * 5]
QUESTIONS = [
    f"What {i} {'of it ' * (i % 9)}?{MARK if i % 4 == 0 else ''} maybe{MARK} {ANSWERS[i % 5]} {i}" for i in range(60)
]
LENGTH = 16


def prepared(folder, tokenizer, packing=CONCATENATE, texts=QUESTIONS, **said):
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{i}", "text": text}) + "\n" for i, text in enumerate(texts)), "utf-8")
    sources = {"questions": {"where": str(path), **said}}
    root = str(folder / "rows")
    return ensure_rows(sources, str(tokenizer), LENGTH, root, validation_fraction=0.3, packing=packing)["questions"]


@pytest.mark.parametrize("packing", [CONCATENATE, BEST_FIT])
@pytest.mark.parametrize("kind", ["byte_level", "llama"])
def test_the_targets_that_count_say_what_follows_the_mark(kind, packing, request, tmp_path):
    folder = request.getfixturevalue(kind)
    tokenizer = open_tokenizer(str(folder))
    made = prepared(tmp_path, folder, packing, scored_after=MARK)
    reader = RowReader(made.validation)
    documents = reader.documents(range(reader.manifest.documents))
    counted = {i: [] for i in range(len(documents))}
    for row in reader.pieces(range(len(reader))):
        at = np.cumsum(row.lengths + 1) - (row.lengths + 1)
        begin = np.cumsum(row.lengths) - row.lengths
        for ordinal, n, stream, weight in zip(row.ordinals.tolist(), row.lengths, at, begin, strict=True):
            targets = row.stream[stream + 1 : stream + 1 + n]
            counted[ordinal].append((n < LENGTH, targets[row.weights[weight : weight + n] > 0]))
    assert len(documents) > 5
    pieces_of = [n for n in counted if len(counted[n]) > 1]
    assert all(
        len(tokenizer.encode(QUESTIONS[int(documents[n]["id"][1:])])) + 1 > LENGTH for n in pieces_of
    )  # no other is cut
    for ordinal, document in enumerate(documents):
        text = QUESTIONS[int(document["id"][1:])]
        answer = text[text.rindex(MARK) + len(MARK) :]
        pieces = sorted(counted[ordinal], key=lambda piece: piece[0])  # best fit may write a document's rest first
        targets = np.concatenate([targets for _, targets in pieces]).tolist()
        assert len(targets) == document["tokens"] and targets.count(tokenizer.eos) == 1
        said = tokenizer.decode([each for each in targets if each != tokenizer.eos])
        assert said.strip() == answer.strip()
        assert document["bytes"] == len(answer.encode())
    assert reader.manifest.tokens == sum(document["tokens"] for document in documents)
    assert reader.manifest.bytes == sum(document["bytes"] for document in documents)


def test_training_reads_the_same_rows_with_and_without_a_mark(byte_level, tmp_path):
    plain, marked = (prepared(tmp_path, byte_level, **said) for said in ({}, {"scored_after": MARK}))
    assert plain.train != marked.train and plain.validation != marked.validation
    ours, theirs = RowReader(plain.train), RowReader(marked.train)
    for one, other in zip(ours.pieces(range(len(ours))), theirs.pieces(range(len(theirs))), strict=True):
        assert one.weights is None and other.weights is None
        np.testing.assert_array_equal(one.stream, other.stream)
    held_out = [RowReader(each.validation).documents(range(3)) for each in (plain, marked)]
    assert [each["id"] for each in held_out[0]] == [each["id"] for each in held_out[1]]


@pytest.mark.parametrize("end, said", [(" no mark here", "does not hold"), (MARK, "ends with")])
def test_a_held_out_document_without_the_part_is_named(byte_level, tmp_path, end, said):
    texts = [f"{i} {'word ' * i}{end}" for i in range(40)]
    with pytest.raises(ConfigurationError, match=rf"the held-out document 'q\d+' {said}.*scored_after"):
        prepared(tmp_path, byte_level, texts=texts, scored_after=MARK)


def test_a_source_is_written_as_a_dict_or_as_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n', "utf-8")
    written = {"where": str(path), "scored_after": MARK}
    assert find_source("a", written) == find_source("a", Text(**written))
    assert from_plain(json.loads(json.dumps(as_plain(written)))) == written
    assert from_plain(json.loads(json.dumps(as_plain(Text(**written))))) == Text(**written)
    assert "scored_after" not in as_plain(Text(where=str(path)))["Text"]  # what was recorded before is the same still
    with pytest.raises(ConfigurationError, match="says 'scored'; what can be said of one: .*scored_after"):
        find_source("a", {"where": str(path), "scored": MARK})
    with pytest.raises(ConfigurationError, match="does not say where its text is"):
        find_source("a", {"scored_after": MARK})
    with pytest.raises(ConfigurationError, match="scored_after is 7"):
        find_source("a", {"where": str(path), "scored_after": 7})


def test_the_questions_keep_what_other_sources_lose(byte_level, tmp_path):
    """Documents of other sources that hold a question go; the file of the questions is not emptied by its own items."""
    long = [
        f"{i}. which of these words, one after the other, is the {i}th of a text{MARK} that is {i}" for i in range(20)
    ]
    other = [f"It was asked: {long[3]}", "nothing of that kind is to be found in this one"]
    paths = {}
    for name, texts in {"questions": long, "other": other, "exam": [long[5]]}.items():
        paths[name] = tmp_path / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    exams = [str(paths["questions"]), str(paths["exam"])]

    def documents(**sources):
        found = ensure_rows(
            sources,
            str(byte_level),
            LENGTH,
            str(tmp_path / "rows"),
            validation_fraction=0.1,
            near_duplicates=None,
            exams=exams,
        )
        count = lambda manifest: 0 if manifest is None else manifest.documents  # noqa: E731
        return {name: count(each.train_manifest) + count(each.validation_manifest) for name, each in found.items()}

    kept = {"where": str(paths["questions"]), "keep_own_items": True}
    assert documents(questions=kept, other=str(paths["other"])) == {
        "questions": 19,
        "other": 1,
    }  # less the other exam's
    with pytest.raises(ConfigurationError, match="holds an item of the exams"):
        documents(questions=str(paths["questions"]))
