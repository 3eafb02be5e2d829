"""The text that a step's folder says it was made of: of runs, of vocabularies, of evaluations."""

import hashlib
import json

import pytest
from etils import epath

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.reporting.reproduction import text_checks


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "a"}\n')
    return path


def configured(folder, gin_file, *settings):
    """Writes the configuration of a job as the job keeps it."""
    command = parse_command([f"--gin_file={gin_file}", *(f"--gin.{setting}" for setting in settings)])
    folder.mkdir()
    (folder / "config.gin").write_text(configure(command).gin_text)
    return epath.Path(folder)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def now(folder, known=None):
    return [check.now for check in text_checks(folder, known)]


def test_a_vocabulary_knows_its_text(tmp_path, text):
    settings = (f"GENERAL='{text}'", "SOURCES={'g': %GENERAL}", "VOCABULARY=300", "OUTPUT_DIR='x'")
    folder = configured(tmp_path / "tokenizer", "gin/jobs/train_tokenizer.gin", *settings)
    (folder / "training.json").write_text(json.dumps({"settings": {}, "text": {"g": [sha256(text)]}}))
    assert now(folder) == ["as then"]
    text.write_text('{"text": "b"}\n')
    assert now(folder) == ["1 of them changed or gone, 1 new"]


def test_an_evaluation_knows_its_text(tmp_path, text):
    settings = ("CHECKPOINTS='c'", f"SOURCES={{'g': '{text}'}}", "SEQUENCE_LENGTH=8", "OUTPUT_DIR='x'")
    folder = configured(tmp_path / "evaluation", "gin/jobs/evaluate.gin", *settings)
    then = hashlib.sha256(sha256(text).encode()).hexdigest()
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "base.json").write_text(json.dumps({"settings": {"SOURCES": {"g": then}}}))
    known = {}
    assert now(folder, known) == ["as then"] and list(known.values()) == [[sha256(text)]]
    text.write_text('{"text": "b"}\n')
    assert now(folder) == ["changed"] and now(folder, known) == ["as then"]


def test_text_whose_name_is_no_longer_known_is_not_as_it_was(tmp_path):
    (tmp_path / "training.json").write_text('{"text": {"g": ["0"]}}')
    (tmp_path / "config.gin").write_text("JOB = 'no_such_job'\n")
    (check,) = text_checks(epath.Path(tmp_path))
    assert check.decisive and not check.same and "there is no job 'no_such_job'" in check.now


def test_a_folder_of_another_job_has_none(tmp_path):
    assert text_checks(epath.Path(tmp_path)) == [] and text_checks(epath.Path(tmp_path / "nothing")) == []
