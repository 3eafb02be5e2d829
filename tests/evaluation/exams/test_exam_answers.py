"""Answers and their rows: worked by hand from given scores, and from the real checkpoint against whole texts scored alone."""

import json
import math

import jax
import numpy as np
import pytest

from cptjax.checkpoints.source import open_checkpoint
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams import answers as answering
from cptjax.evaluation.exams.answers import ExamAnswers, ExamSettings, answer_exam, credit, numbered
from cptjax.evaluation.exams.questions import open_exam
from cptjax.evaluation.exams.rows import exam_rows
from cptjax.evaluation.exams.templates import Template
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.own_samples import Model
from cptjax.evaluation.score import score_sequences
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

STORIES = [
    {"id": 0, "question": "Once upon a time, there was a little", "choices": ["girl", "of the table"], "answer": 0},
    {"id": 1, "question": "Lily saw a big", "choices": ["dog.", "and to.", "red ball in the park.", "é"], "answer": 2},
    {"id": 2, "question": "The", "choices": ["same", "same", "sun is hot"], "answer": 1},
]


def write_exam(path, questions=STORIES):
    path.write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    return open_exam(str(path))


@pytest.fixture(scope="module")
def stories(shared_data):
    """The real checkpoint, its tokenizer, and a mesh of one device."""
    opened = open_checkpoint(shared_data / "stories260K")
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    model = Model(opened.load_parameters(mesh), opened.config, Numerics())
    return model, open_tokenizer(str(opened.model_folder)), mesh


def test_a_shared_best_score_is_shared_credit():
    assert credit(np.array([1.0, 3.0, 2.0]), 1) == 1.0 and credit(np.array([1.0, 3.0, 2.0]), 2) == 0.0
    assert credit(np.array([3.0, 3.0, 2.0]), 0) == 0.5 and credit(np.full(4, -1.0), 3) == 0.25


def test_what_is_no_number_earns_nothing():
    assert credit(np.array([0.5, np.nan]), 0) == credit(np.array([np.nan, np.nan]), 1) == 0.0


def test_a_question_without_a_document_stands_alone_among_those_with_one():
    assert numbered(["one", None, "two", "one", None]).tolist() == [0, 1, 2, 0, 3]
    assert numbered([None, None]) is None


def test_cloze_answers_are_those_of_whole_texts(stories, tmp_path):
    model, tokenizer, mesh = stories
    exam = write_exam(tmp_path / "stories.jsonl")
    with jax.set_mesh(mesh):
        found = answer_exam(model, tokenizer, exam, ExamSettings(forms=("cloze",)), mesh).columns
        texts = [(q["question"], q["question"] + " " + choice) for q in STORIES for choice in q["choices"]]
        encoded = [[[tokenizer.bos, *tokenizer.encode(text)] for text in both] for both in texts]
        whole = iter(
            list(score_sequences(model.params, model.config, Numerics(), mesh, (whole for _, whole in encoded)))
        )
    scores = [
        [next(whole)[len(encoded[at + i][0]) - 1 :].sum() for i in range(len(q["choices"]))]
        for q, at in zip(STORIES, (0, 2, 6), strict=True)
    ]
    for number, (question, mine) in enumerate(zip(STORIES, scores, strict=True)):
        right, mine = question["answer"], np.array(mine)
        others = np.delete(mine, right)
        assert found["cloze_nats"][number] == pytest.approx(-mine[right], rel=1e-4)
        assert found["cloze_margin"][number] == pytest.approx(mine[right] - others.max(), abs=1e-3)
        assert found["chance"][number] == 1 / len(mine)
    assert found["cloze_accuracy"].tolist() == [1.0, 0.0, 0.5]  # the two that are the same share the third
    lengths = np.array([len(choice) for choice in STORIES[1]["choices"]])
    assert found["cloze_accuracy_per_character"][1] == float(np.argmax(np.array(scores[1]) / lengths) == 2)
    assert found["majority_letter"].tolist() == [1.0, 0.0, 0.0] and found["cloze_margin"][2] == 0.0
    assert set(found) >= {"cloze_answer_prior", "cloze_tokens"} and "letter_accuracy" not in found


def given_scores(monkeypatch, nats):
    """As if the model had given these nats, ask by ask."""

    def scored(params, config, numerics, mesh, asks):
        for number, _ in enumerate(asks):
            yield number, np.array(nats[number])

    monkeypatch.setattr(answering, "score_asks", scored)


def test_letters_are_averaged_over_their_rotations(stories, tmp_path, monkeypatch):
    """Three choices, the second is right: under rotation 0, 1, 2 it stands at B, C, A."""
    model, tokenizer, mesh = stories
    exam = write_exam(tmp_path / "one.jsonl", [{"id": 0, "question": "?", "choices": ["x", "y", "z"], "answer": 1}])
    always_a = [0.1, 2.0, 3.0]
    given_scores(monkeypatch, [[1.0, 0.5, 2.0], [1.0, 2.0, 3.0], [0.25, 1.0, 1.0], *[always_a] * 3])
    found = answer_exam(model, tokenizer, exam, ExamSettings(forms="letter"), mesh).columns
    assert found["letter_accuracy"][0] == pytest.approx(2 / 3) and found["letter_accuracy_as_written"][0] == 1.0
    assert found["letter_nats"][0] == pytest.approx(0.5 + 3.0 + 0.25) and found["letter_tokens"][0] == 3
    assert found["letter_margin"][0] == pytest.approx((0.5 - 2.0 + 0.75) / 3)
    assert found["letter_answer_prior"][0] == pytest.approx(1 / 3)  # who always says A is right by chance


def test_characters_and_bytes_are_those_of_the_choice(stories, tmp_path, monkeypatch):
    model, tokenizer, mesh = stories
    line = {"id": 0, "question": "?", "choices": ["ab", " ééé ", "abcdefgh"], "answer": 1}
    exam = write_exam(tmp_path / "one.jsonl", [line])
    given_scores(monkeypatch, [[2.0, 2.5, 7.0]])
    found = answer_exam(model, tokenizer, exam, ExamSettings(forms="cloze", prior=False), mesh).columns
    by = {name: found[f"cloze_accuracy{name}"][0] for name in ("", "_per_character", "_per_byte")}
    assert by == {"": 0.0, "_per_character": 1.0, "_per_byte": 1.0}  # 1.0, 0.83, 0.88; and 1.0, 0.42, 0.88
    assert "cloze_answer_prior" not in found and found["cloze_margin"][0] == pytest.approx(-0.5)


def test_what_is_set_aside_is_not_scored_and_shots_come_from_it(stories, tmp_path):
    model, tokenizer, mesh = stories
    lines = [{"id": i, "question": f"{i} and", "choices": ["x", "y"], "answer": i % 2} for i in range(30)]
    exam = write_exam(tmp_path / "many.jsonl", lines)
    with jax.set_mesh(mesh):
        found = answer_exam(
            model, tokenizer, exam, ExamSettings(forms="cloze", shots=1, prior=False, set_aside=0.3), mesh
        )
    assert 12 < len(found) < 30 and found.cut == 0
    with pytest.raises(ConfigurationError, match="EXAM_SHOTS = 30, but only"):
        answer_exam(model, tokenizer, exam, ExamSettings(forms="cloze", shots=30), mesh)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"forms": ("essay",)}, "EXAM_FORMS"),
        ({"forms": ()}, "EXAM_FORMS"),
        ({"shots": -1}, "EXAM_SHOTS"),
        ({"shots": 2, "set_aside": 0.0}, "nothing to draw examples from"),
        ({"set_aside": 1.0}, "EXAM_SET_ASIDE"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ExamSettings(**settings)


def test_a_text_that_goes_on_is_not_asked_for_letters(tmp_path):
    exam = write_exam(tmp_path / "cloze.jsonl", [{**STORIES[0], "separator": " "}])
    assert ExamSettings().forms_of(exam) == ("cloze",)
    with pytest.raises(ConfigurationError, match="ask it as 'cloze'"):
        ExamSettings(forms="letter").forms_of(exam)
    assert Template().cloze_context(next(exam.read())) == STORIES[0]["question"]


def measured(label):
    return Measurement(label, "/runs/it", 7, 900, label, "tokenizer", {}, {}, None, None)


def answers(right, nats, documents=None):
    right = np.array(right, float)
    columns = {
        "cloze_accuracy": right,
        "cloze_accuracy_per_character": right,
        "cloze_accuracy_per_byte": right,
        "cloze_nats": np.array(nats, float),
        "cloze_tokens": np.full(len(right), 2.0),
        "cloze_margin": right - 0.5,
        "chance": np.full(len(right), 0.25),
        "majority_letter": np.zeros(len(right)),
    }
    return ExamAnswers(columns, None if documents is None else np.array(documents), 0)


def test_rows_hold_accuracies_baselines_changes_and_tests():
    base = answers([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [4.0] * 10)
    mine = answers([1, 0, 1, 1, 1, 1, 1, 1, 1, 0], [2.0] * 10)
    rows = {row["metric"]: row for row in exam_rows(measured("after"), "law", mine, base, True, seed=0)}
    row = rows["cloze_accuracy"]
    assert (row["suite"], row["subset"], row["checkpoint"], row["step"], row["tokens"]) == (
        "exam",
        "law",
        "after",
        7,
        900,
    )
    assert row["value"] == 0.8 and row["n"] == 10 and row["interval"] == "questions (this checkpoint only)"
    assert (row["low"], row["high"]) == (pytest.approx(0.49016, abs=1e-5), pytest.approx(0.94332, abs=1e-5))  # Wilson
    assert rows["cloze_accuracy_change"]["value"] == pytest.approx(0.5)
    assert rows["cloze_accuracy_change"]["low"] < 0.5 < rows["cloze_accuracy_change"]["high"]
    test = rows["cloze_accuracy_p"]  # six better, one worse: 2 * (1 + 7) / 2**7
    assert test["value"] == pytest.approx(16 / 128) and test["n"] == 7 and "McNemar" in test["interval"]
    assert rows["cloze_perplexity"]["value"] == pytest.approx(math.e)
    assert rows["cloze_perplexity_change"]["value"] == pytest.approx(math.e - math.e**2)
    assert rows["chance"]["value"] == 0.25 and rows["chance"]["low"] is None and rows["majority_letter"]["value"] == 0
    other = {row["metric"] for row in exam_rows(measured("after"), "law", mine, base, False, seed=0)}
    assert set(rows) - other == {"cloze_perplexity_change", "cloze_margin_change"}
    alone = {row["metric"] for row in exam_rows(measured("before"), "law", base, None, True, seed=0)}
    assert not [metric for metric in alone if metric.endswith(("_change", "_p"))]


def test_questions_of_one_document_are_drawn_together():
    """Ten documents of ten questions each, all right or all wrong: ten things vary, not a hundred."""
    right = np.repeat([1, 0, 1, 1, 0, 0, 1, 0, 1, 0], 10)
    apart, together = (
        {row["metric"]: row for row in exam_rows(measured("it"), "law", each, None, True, seed=0)}
        for each in (answers(right, right), answers(right, right, np.repeat(np.arange(10), 10)))
    )
    width = {
        name: rows["cloze_accuracy"]["high"] - rows["cloze_accuracy"]["low"]
        for name, rows in (("a", apart), ("t", together))
    }
    assert width["t"] > 2.5 * width["a"] and "documents" in together["cloze_accuracy"]["interval"]
    base = answers(1 - right, right, np.repeat(np.arange(10), 10))
    rows = {
        row["metric"]: row
        for row in exam_rows(measured("it"), "law", answers(right, right, np.repeat(np.arange(10), 10)), base, True, 0)
    }
    assert rows["cloze_accuracy_p"]["n"] == 10 and rows["cloze_accuracy_p"]["value"] > 0.9
