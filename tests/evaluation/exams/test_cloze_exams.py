"""Generated exams: the true continuation among others of the same document, the same whenever they are made."""

import gzip
import json

import numpy as np
import pytest

from cptjax.data.document import Document
from cptjax.data.scan import scan
from cptjax.data.sources import find_source
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.cloze import ClozeSettings, make_questions
from cptjax.evaluation.exams.questions import open_exam
from cptjax.jobs.make_exam import make_exam
from cptjax.selection.shingles import word_begins


def document(name, text):
    return Document(name, text, len(text.encode()), {})


def books(count=6, words=150, spaces=" "):
    random = np.random.default_rng(5)
    made = []
    for number in range(count):
        text = "".join(f"w{random.integers(10_000)}{spaces if i % 9 else '.' + spaces * 2}" for i in range(words))
        made.append((number * 3, document(f"book{number}", text)))
    return made


def check(questions, texts, settings):
    for question in questions:
        ordinal = int(question["document"].partition(":")[0])
        text = texts[ordinal]
        right = question["choices"][question["answer"]]
        whole = question["question"] + question["separator"] + right
        assert whole in text and len(word_begins(question["question"])) == settings.context
        around = text.index(whole), text.index(whole) + len(whole)
        assert len(set(question["choices"])) == 4
        for choice in question["choices"]:
            assert len(word_begins(choice)) == settings.continuation and choice in text
            if choice != right:  # of what was not just read
                at = text.index(choice)
                assert at >= around[1] or at + len(choice) <= around[0]


def test_the_true_continuation_stands_among_passages_of_its_own_document():
    settings = ClozeSettings(questions=50, context=20, continuation=8, seed=3)
    read = books()
    made = list(make_questions(lambda: read, settings))
    assert len(made) == 50 == len({question["id"] for question in made})
    check(made, {ordinal: each.text for ordinal, each in read}, settings)
    counts = np.bincount([int(q["document"].partition(":")[0]) // 3 for q in made])
    assert counts.min() >= 4 and counts.max() <= 12  # all six documents, about equally
    assert len({question["answer"] for question in made}) == 4
    assert made == list(make_questions(lambda: read, settings))
    other = list(make_questions(lambda: read, ClozeSettings(50, 20, 8, seed=4)))
    assert other != made


def test_a_short_document_gives_what_it_can_and_others_the_rest():
    settings = ClozeSettings(questions=30, context=20, continuation=8)
    read = [*books(3, 200), (100, books(1, 54)[0][1]), (101, books(1, 51)[0][1])]
    made = list(make_questions(lambda: read, settings))
    names = [int(question["document"].partition(":")[0]) for question in made]
    assert len(made) == 30 and 101 not in names and 1 <= names.count(100) <= 10


def test_text_without_spaces_is_cut_between_characters():
    text = "".join(chr(0x4E00 + i) for i in np.random.default_rng(0).integers(0, 5000, 300))
    settings = ClozeSettings(questions=10, context=20, continuation=6)
    made = list(make_questions(lambda: [(0, document("law", text))], settings))
    check(made, {0: text}, settings)
    assert all(question["separator"] == "" and len(question["question"]) == 20 for question in made)


def test_words_begin_after_white_space_and_at_characters_that_are_words():
    assert word_begins("  a bc,\nd") == [2, 4, 8]
    assert word_begins("第一条。本法a b") == [0, 1, 2, 4, 5, 6, 8]
    assert word_begins("") == []


def test_too_little_text_is_refused_with_what_it_is_enough_for():
    with pytest.raises(ConfigurationError, match=r"QUESTIONS = 500, but the text is enough for \d+ \(6 of its 6"):
        list(make_questions(lambda: books(), ClozeSettings(questions=500, context=20, continuation=8)))


def test_the_job_makes_an_exam_of_what_a_run_holds_out(shared_data, tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    with gzip.open(shared_data / "corpora" / "english_technical.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus.write_text("".join(line for _, line in zip(range(60), lines, strict=False)), encoding="utf-8")
    tokenizer = str(shared_data / "stories260K")
    made = [tmp_path / name for name in ("one.jsonl", "two.jsonl")]
    for path in made:
        make_exam(str(corpus), str(path), questions=40, tokenizer=tokenizer, validation_fraction=0.2)
    assert made[0].read_bytes() == made[1].read_bytes() and "40 questions" in capsys.readouterr().out
    assert open_exam(str(made[0])).continues and open_exam(str(made[0])).most_choices == 4
    split = scan(find_source("it", str(corpus)), open_tokenizer(tokenizer), SplitSettings(0.2))
    held_out = set(split.members("validation").tolist())
    used = {int(json.loads(line)["document"].partition(":")[0]) for line in made[0].read_text().splitlines()}
    assert used <= held_out and len(held_out) < len(split.names) / 2
    with pytest.raises(ConfigurationError, match="ends in .jsonl"):
        make_exam(str(corpus), str(tmp_path / "exam.txt"))
