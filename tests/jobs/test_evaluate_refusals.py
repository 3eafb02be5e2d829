"""What `evaluate` refuses before it reads or makes anything: settings that cannot be together, or are not those of the folder."""

import json

import pytest

from cptjax.errors import ConfigurationError
from cptjax.evaluation.measurement import refuse_other_settings
from cptjax.jobs.evaluate import evaluate


def asked(folder, **settings):
    given = {"checkpoints": {"one": "/no/such/run"}, "sources": {"law": "/no/such.jsonl"}, "sequence_length": 64}
    evaluate(**{**given, "output_dir": str(folder), **settings})


@pytest.fixture
def measured(tmp_path):
    """A folder that holds a measurement under the settings of `asked` and those that are given."""

    def write(**more):
        then = {"SEQUENCE_LENGTH": 64, "VALIDATION_FRACTION": 0.02, "VALIDATION_TOKENS": 2**17, "NEAR_DUPLICATES": 0.7}
        then |= {"SAMPLES": 128, "SAMPLE_TOKENS": 128, "SEED": 0, "COMPUTE_DTYPE": "float32", **more}
        folder = tmp_path / "done"
        (folder / "evaluation").mkdir(parents=True)
        (folder / "run.json").write_text("[]", encoding="utf-8")
        (folder / "evaluation" / "one.json").write_text(json.dumps({"settings": then}), encoding="utf-8")
        return folder

    return write


def text(path):
    path.write_text('{"text": "Once upon a time."}\n', encoding="utf-8")
    return str(path)


def exam(path):
    lines = [{"id": n, "question": f"Which {n}?", "choices": ["a", "b"], "answer": n % 2} for n in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_a_folder_measured_in_windows_is_not_gone_on_with_without_them(measured, tmp_path):
    folder, questions = measured(STRIDE=16), exam(tmp_path / "law.jsonl")
    with pytest.raises(ConfigurationError, match=r"STRIDE: 16 then, None now"):
        asked(folder, sources={}, exams=questions)


def test_a_folder_from_before_a_setting_was_kept_is_gone_on_with(measured, tmp_path):
    with pytest.raises(ConfigurationError, match=r"There is nothing at '/no/such/run'"):
        asked(measured(), sources={"law": text(tmp_path / "law.jsonl")})


def test_text_made_by_a_template_is_other_text_than_without_it(measured):
    folder = measured(templates={"law": "{title}"})
    with pytest.raises(ConfigurationError, match=r"templates: .*title.* then, None now"):
        refuse_other_settings(folder, {"templates": None})
