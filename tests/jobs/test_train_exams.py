"""Exams that a run answers as it trains: in its folder and in its report, and nothing to the training."""

import json

import pytest
from commands import logged, run_main
from test_train import parameters

from cptjax.evaluation.exams.questions import open_exam


@pytest.mark.slow
def test_a_run_that_answers_exams_is_the_run_that_does_not(finished_run, recipe, tmp_path, monkeypatch):
    whole, _ = finished_run
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    exam = tmp_path / "stories.jsonl"
    words = ("dog", "cat", "bird", "girl named Lily")
    lines = [
        {"id": i, "question": f"Once upon a time {i} there was a", "choices": words, "answer": i % 4} for i in range(30)
    ]
    exam.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = tmp_path / "run"
    printed = run_main(*recipe, f"OUTPUT_DIR='{run}'", f"EXAMS='{exam}'", "EXAM_QUESTIONS=20")

    # The training: the same rows, losses and bits, each step's program compiled once, and the scorer's.
    lines = logged(run)
    asked = [{name: line.pop(name) for name in list(line) if name.startswith("exam/")} for line in lines]
    assert lines == logged(whole)
    mine, theirs = parameters(run), parameters(whole)
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in theirs)
    assert printed.count("Finished XLA compilation of jit(train_step)") == 1
    assert printed.count("Finished XLA compilation of jit(score_continuations)") == 1

    # The log: at every evaluation, with intervals and baselines, and the numbers of metrics.jsonl.
    rows = [json.loads(line) for line in (run / "evaluation.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(row["step"] for row in rows)) == [0, 16, 32, 40]
    assert {row["sha256"] for row in rows} == {open_exam(str(exam)).sha256}
    last = {row["metric"]: row for row in rows if row["step"] == 40}
    metrics = next(each for line, each in zip(lines, asked, strict=True) if line["step"] == 40 and each)
    for metric in ("letter_accuracy", "cloze_accuracy", "chance", "majority_letter", "letter_answer_prior"):
        assert metrics[f"exam/stories/{metric}"] == last[metric]["value"] and last[metric]["n"] == 20
    assert last["cloze_accuracy"]["low"] <= last["cloze_accuracy"]["value"] <= last["cloze_accuracy"]["high"]
    assert last["cloze_accuracy"]["tokens"] == pytest.approx(20480, rel=0.01)
    assert (
        "exam      stories: every 16 steps, 20 questions of at most 20, drawn by SEED = 0; letter and cloze form"
        in printed
    )
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Exam stories, the likeliest choice: accuracy" in page and "Exams as it trained" in page
