"""Exams in the training loop: the same few questions each time, scored as the job `evaluate` scores them, compiled once."""

import json

import jax
import numpy as np
import pytest

from cptjax.checkpoints.source import open_checkpoint
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams import scoring
from cptjax.evaluation.exams.answers import ExamSettings, answer_exam
from cptjax.evaluation.exams.examples import is_set_aside
from cptjax.evaluation.exams.in_training import AsTrained, AtStep, ExamsInTraining, as_lines, as_metrics, drawn
from cptjax.evaluation.exams.questions import open_exam
from cptjax.evaluation.own_samples import Model
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    path = tmp_path_factory.mktemp("exam") / "animals.jsonl"
    animals = ("dog", "cat", "bird", "fish")
    lines = [
        {"id": i, "question": f"Once upon a time {i} there was a", "choices": animals, "answer": i % 4}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return open_exam(str(path))


def test_fewer_questions_are_some_of_the_same_and_stay_the_same(exam):
    settings = ExamSettings(seed=3)
    ids = {most: [question.id for question in drawn(exam, most, settings).read()] for most in (5, 12, None)}
    assert len(ids[5]) == 5 and len(ids[12]) == 12 and set(ids[5]) < set(ids[12]) and len(ids[None]) == 40
    assert ids[12] == sorted(ids[12], key=int)  # in the exam's order
    assert ids[12] == [question.id for question in drawn(exam, 12, settings).read()]
    assert ids[12] != [question.id for question in drawn(exam, 12, ExamSettings(seed=4)).read()]
    some = drawn(exam, 12, settings)
    assert (some.questions, some.majority, some.sha256) == (12, exam.majority, exam.sha256)


def test_examples_are_kept_beside_the_questions_that_are_drawn(exam):
    settings = ExamSettings(shots=1, set_aside=0.3)
    some = drawn(exam, 5, settings)
    aside = [question.id for question in exam.read() if is_set_aside(question, 0.3)]
    kept = [question.id for question in some.read()]
    assert set(aside) < set(kept) and len(kept) == len(aside) + 5 and aside


def test_what_cannot_be_asked_is_refused_before_the_run_starts(exam):
    with pytest.raises(ConfigurationError, match="EXAM_QUESTIONS"):
        ExamsInTraining(exam.file, questions=0)
    with pytest.raises(ConfigurationError, match="there is no file"):
        ExamsInTraining("nowhere.jsonl").opened()
    assert ExamsInTraining().opened() == []


def test_rows_are_those_of_an_evaluation_and_nothing_is_compiled_twice(exam, shared_data):
    opened = open_checkpoint(shared_data / "stories260K")
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    tokenizer = open_tokenizer(str(opened.model_folder))
    model = Model(opened.load_parameters(mesh), opened.config, Numerics())
    asked = ExamsInTraining(exam.file, 12)
    (some,) = asked.opened()
    trained = AsTrained([some], asked.settings, tokenizer, mesh)
    with jax.set_mesh(mesh):
        rows = trained.rows(model, AtStep(8, 4096))
        compiled = scoring._build_nats(model.config, model.numerics)._cache_size()
        nudged = {name: jax.device_put(1.01 * weight, weight.sharding) for name, weight in model.params.items()}
        moved = Model(nudged, model.config, model.numerics)
        later = trained.rows(moved, AtStep(16, 8192))
        assert scoring._build_nats(model.config, model.numerics)._cache_size() == compiled
        whole = answer_exam(model, tokenizer, exam, ExamSettings(), mesh).columns
    found = {row["metric"]: row for row in rows}
    places = [int(question.id) for question in some.read()]
    for metric in ("letter_accuracy", "cloze_accuracy", "cloze_answer_prior", "chance"):
        assert found[metric]["value"] == pytest.approx(np.mean(whole[metric][places]), abs=1e-9)
    assert found["cloze_accuracy"]["low"] <= found["cloze_accuracy"]["value"] <= found["cloze_accuracy"]["high"]
    for row in rows:
        assert (row["checkpoint"], row["step"], row["tokens"], row["sha256"]) == ("step 8", 8, 4096, exam.sha256)
    assert {row["metric"]: row["value"] for row in later}["cloze_perplexity"] != found["cloze_perplexity"]["value"]
    assert as_metrics(rows)["exam/animals/letter_accuracy"] == found["letter_accuracy"]["value"]
    lines = as_lines(rows)
    assert len(lines) == 2 and "exam animals, cloze form: 0." in lines[1] and "chance 0.250" in lines[1]

    class Asked(Exception):
        pass

    def stop():
        raise Asked

    with jax.set_mesh(mesh), pytest.raises(Asked):
        trained.rows(model, AtStep(24, 0), stop)
