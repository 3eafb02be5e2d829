"""The job as a user runs it: a folder that is whole or not there, and refusals."""

import json

import pytest
from commands import run_main

from cptjax.data.tokenizer import open_tokenizer
from cptjax.reporting.reproduction import text_checks

SETTINGS = ["gin/jobs/train_tokenizer.gin", "SOURCES={'code': 'python:source#2e5'}", "VOCABULARY=400"]


def test_a_tokenizer_is_trained_once_and_never_overwritten(tmp_path):
    folder = tmp_path / "mit Leerzeichen ü"
    printed = run_main(*SETTINGS, f"OUTPUT_DIR='{folder}'", "--dry_run")
    assert "training 400 pieces (bpe) on code" in printed and not folder.exists()
    printed = run_main(*SETTINGS, f"OUTPUT_DIR='{folder}'")
    assert "bytes per token" in printed and f"wrote {folder}" in printed
    record = json.loads((folder / "training.json").read_text())
    assert record["sources"]["code"]["sampled_bytes"] == record["sources"]["code"]["bytes"] > 100_000
    assert open_tokenizer(str(folder)).size == 400
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    assert "holds this tokenizer already" in run_main(*SETTINGS, f"OUTPUT_DIR='{folder}'")
    printed = run_main(*SETTINGS, f"OUTPUT_DIR='{folder}'", "VOCABULARY=500", code=2)
    assert "trained with other settings" in printed
    again = tmp_path / "again"
    run_main(*SETTINGS, f"OUTPUT_DIR='{again}'")
    assert (again / "tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()


def test_a_unigram_one_brings_what_transformers_needs(tmp_path):
    run_main(*SETTINGS, "KIND='unigram'", f"OUTPUT_DIR='{tmp_path}/u'")
    assert json.loads((tmp_path / "u" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["type"] == "Unigram"
    assert open_tokenizer(str(tmp_path / "u")).size == 400


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("VOCABULARY=100", "VOCABULARY = 100; 3 special tokens and 256 bytes come first"),
        ("VOCABULARY=300000", "VOCABULARY = 300000 is more than this text can fill"),
        ("KIND='wordpiece'", "KIND = 'wordpiece'; it is one of 'bpe', 'unigram'"),
        ("SOURCES={}", "SOURCES is empty"),
        ("SOURCES={'code': 'python:docs'}", "There are python:documentation, python:source, python:descriptions"),
        ("SOURCES={'code': 'python:descriptions#1'}", "python:descriptions#1 gives no document here"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(tmp_path, setting, complaint):
    printed = run_main(*SETTINGS, setting, f"OUTPUT_DIR='{tmp_path}/t'", code=2)
    assert complaint in printed and "Traceback" not in printed
    assert not list(tmp_path.iterdir())


def test_another_template_is_another_text(tmp_path):
    """Also: `reproduce` finds the text of a source that a gin file says more of than where it is."""
    questions = tmp_path / "exam.jsonl"
    lines = [{"question": f"What is {n}?", "choices": [f"{n}", f"{n + 1}"], "answer": 0} for n in range(200)]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    gin = tmp_path / "exam.gin"
    gin.write_text(
        "from __gin__ import dynamic_registration\nfrom cptjax.data import sources\n"
        f"TEMPLATE = 'Q: {{question}} A: {{correct}}'\nsources.Text.where = '{questions}'\nsources.Text.template = %TEMPLATE\n"
        "SOURCES = {'exam': @sources.Text()}\n"
    )
    settings = ["gin/jobs/train_tokenizer.gin", str(gin), "VOCABULARY=280", f"OUTPUT_DIR='{tmp_path}/t'"]
    run_main(*settings)
    assert "holds this tokenizer already" in run_main(*settings)
    printed = run_main(*settings, "TEMPLATE='{question}'", code=2)
    assert "trained with other records" in printed
    (check,) = text_checks(tmp_path / "t")
    assert check.what == f"text: exam ({questions}, 1 file)" and check.now == "as then"
    questions.write_text(questions.read_text() + json.dumps(lines[0]) + "\n")
    assert text_checks(tmp_path / "t")[0].now == "1 of them changed or gone, 1 new"


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    assert "is a file" in run_main(*SETTINGS, f"OUTPUT_DIR='{tmp_path}/mine.txt'", code=2)
    assert "holds something else (mine.txt)" in run_main(*SETTINGS, f"OUTPUT_DIR='{tmp_path}'", code=2)
