"""What `evaluate` refuses before it reads or makes anything: settings that cannot be together, or are not those of the folder."""

import json
import shutil

import numpy as np
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


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"stride": 65}, r"STRIDE = 65, but windows are as long as rows, SEQUENCE_LENGTH = 64"),
        ({"group_by": {"prose": "kind"}}, r"GROUP_BY names the source 'prose'; SOURCES has law"),
        ({"group_by": "kind"}, r"GROUP_BY = 'kind'; it is"),
        ({"group_by": {"law": 3}}, r"GROUP_BY = \{'law': 3\}; it is"),
        ({"select_on": "prose"}, r"SELECT_ON = 'prose' is neither. It is a source or an exam: law, few"),
        ({"select_on": "law", "stride": 8}, r"half of its documents are not reported"),
        ({"sources": {"few": "text"}, "select_on": "few"}, r"SELECT_ON = 'few' is both a source and an exam"),
        ({"seed": 2**31}, r"SEED = 2147483648; texts are drawn by one from 0 to 2,147,483,647"),
    ],
)
def test_what_cannot_be_together_is_refused_before_anything_is_read(tmp_path, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        asked(tmp_path / "new", exams=exam(tmp_path / "few.jsonl"), **settings)


@pytest.fixture
def models(shared_data, tmp_path):
    """stories260K, and a system of it twice."""
    story = str(shared_data / "stories260K")
    described = {"router": {"prefix_tokens": 4}, "embedder": {"checkpoint": story}, "experts": [story, story]}
    np.save(tmp_path / "centroids.npy", np.stack([np.ones(64), -np.ones(64)]))
    (tmp_path / "system.json").write_text(json.dumps(described | {"centroids": "centroids.npy"}), encoding="utf-8")
    return {"story": story, "split": str(tmp_path / "system.json")}


def test_models_that_cannot_be_compared_are_refused_before_rows_are_made(models, tmp_path):
    sources = {"law": text(tmp_path / "law.jsonl")}
    for settings, message in (
        (
            {"checkpoints": {"one": models["story"], "two": models["story"]}, "select_on": "law"},
            "there are not two .*: two",
        ),
        ({"checkpoints": models, "base": "split"}, "BASE = 'split' is a system"),
        ({"checkpoints": models, "base": models["split"]}, "system.json' is a system"),
        (
            {
                "checkpoints": {"story": models["story"], "base": models["split"]},
                "base": copy(models["story"], tmp_path),
            },
            "would both be called 'base'",
        ),
        ({"checkpoints": models, "sequence_length": 513}, "SEQUENCE_LENGTH = 513, but 'split, expert 0' was made for"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            asked(tmp_path / "new", sources=sources, **settings)
    assert not (tmp_path / "new").exists()


def copy(folder, to):
    return shutil.copytree(folder, to / "copy").as_posix()
