"""`inspect_data` as a command: of a real run and of a plan, and what it refuses."""

import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest
from commands import run_main

sys.path.insert(0, str(Path(__file__).parents[1] / "reporting"))
from run_folders import write_run  # noqa: E402

from cptjax.checkpoints.source import open_checkpoint  # noqa: E402
from cptjax.data.batch import batch  # noqa: E402
from cptjax.data.plan import DataPlan  # noqa: E402
from cptjax.data.rows import RowReader  # noqa: E402
from cptjax.errors import ConfigurationError, CptjaxError  # noqa: E402
from cptjax.jobs.inspect_data import inspect_data  # noqa: E402

STEP = 33  # of 40: in the second stage


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished run, without its weights, to be spoiled."""
    folder, _ = finished_run
    return Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("state", "tensorboard")))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refused(message: str, kind: type[CptjaxError] = ConfigurationError, **arguments) -> None:
    with pytest.raises(kind, match=message):
        inspect_data(**arguments)


def test_the_rows_of_a_step_are_those_that_the_run_read(finished_run, tmp_path):
    folder, _ = finished_run
    settings = ["gin/jobs/inspect_data.gin", f"CHECKPOINT='{folder}'", f"OUTPUT_DIR='{tmp_path / 'out'}'"]
    printed = run_main(*settings, f"STEP={STEP}", "STATISTICS=False", "MOST_ROWS=3")
    out = tmp_path / "out" / f"step_{STEP}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [out.name]
    plan = DataPlan.from_json(json.dumps(open_checkpoint(folder).metadata["plan"]["data"]))
    record = json.loads((folder / "data.json").read_text())
    served = batch({name: RowReader(record[name]["rows"]) for name in plan.names}, plan, STEP - 1)
    rows = lines(out / "rows.jsonl")
    assert [row["source"] for row in rows] == [plan.names[i] for i in served["source"]]
    for row, targets, segments in zip(rows, served["targets"], served["segment_ids"], strict=True):
        assert (row["step"], row["epoch"] >= 1) == (STEP, True)
        assert [token for piece in row["pieces"] for token in piece["tokens"]] == targets[segments > 0].tolist()
        assert all(piece["id"].startswith("d") and piece["text"] for piece in row["pieces"])
    assert f"step {STEP} of 40, stage 'target': 8 rows" in printed
    assert f"  target: {sum(row['source'] == 'target' for row in rows)} rows" in printed
    page = (out / "rows.html").read_text(encoding="utf-8")
    assert page.count('<section class="row">') == 3 and "5 more rows of this step" in page


def test_what_the_run_read_is_told_from_its_checkpoint_and_its_moved_rows(finished_run, recipe, tmp_path, capsys):
    folder, _ = finished_run
    target = next(setting for setting in recipe if setting.startswith("TARGET=")).partition("=")[2].strip("'")
    exam = tmp_path / "exam.jsonl"
    record = json.loads((folder / "data.json").read_text())
    (first,) = RowReader(record["target"]["rows"]).documents([0])
    question = " ".join(next(doc["text"] for doc in _documents(target) if doc["id"] == first["id"]).split()[:20])
    exam.write_text(json.dumps({"question": question, "choices": ["."]}) + "\n")
    checkpoint = max((folder / "checkpoints").iterdir())
    inspect_data(checkpoint=str(checkpoint), output_dir=str(tmp_path / "out"), exams=[str(tmp_path / "ex*.jsonl")])
    found = json.loads((tmp_path / "out" / "inspection.json").read_text())
    held = {each["source"]: each for each in found["contamination"]}
    assert held["target"]["items"] == 1 and [first["id"], 1] in held["target"]["examples"]
    assert {each["name"] for each in found["sources"]} == {"general", "target"}
    assert "documents read" in (printed := capsys.readouterr().out) and "wrote" in printed
    assert "Exam items in training rows" in (tmp_path / "out" / "inspection.html").read_text(encoding="utf-8")


def _documents(path: str) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_a_plan_is_inspected_before_its_run_and_the_run_still_starts(recipe, finished_run, tmp_path):
    folder, _ = finished_run
    mine = [*recipe, f"OUTPUT_DIR='{tmp_path / 'new'}'"]
    dry = run_main(*mine, "gin/jobs/inspect_plan.gin", f"STEP={STEP}", "--dry_run")
    assert "would write into" in dry and not (tmp_path / "new").exists()
    printed = run_main(*mine, "gin/jobs/inspect_plan.gin", f"STEP={STEP}", f"SKIP_STEPS=[{STEP}]")
    assert f"told to pass over step {STEP}" in printed
    pages = tmp_path / "new" / "inspection"
    assert (pages / "inspection.html").exists() and "training rows of" in printed
    inspect_data(checkpoint=str(folder), output_dir=str(tmp_path / "out"), step=STEP, statistics=False)
    assert lines(pages / f"step_{STEP}" / "rows.jsonl") == lines(tmp_path / "out" / f"step_{STEP}" / "rows.jsonl")
    assert "initialize from" in run_main(*mine, "--dry_run")


def test_another_run_in_the_folder_is_refused(recipe, finished_run):
    folder, _ = finished_run
    printed = run_main(*recipe, "SEED=5", f"OUTPUT_DIR='{folder}'", "gin/jobs/inspect_plan.gin", code=2)
    assert "holds another run" in printed and not (folder / "inspection").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either CHECKPOINT or a recipe"),
        ({"checkpoint": "/x", "step": 0}, "STEP = 0 is below 1"),
        ({"checkpoint": "/x", "step": 1.5}, "STEP = 1.5 is not a whole number"),
        ({"checkpoint": "/x", "most_rows": 0}, "MOST_ROWS = 0"),
        ({"checkpoint": "/x", "statistics": False}, "there is no STEP"),
        ({"checkpoint": "/x", "statistics": False, "step": 1, "exams": ["/e"]}, "EXAMS are looked for"),
        ({"checkpoint": "/x", "exams": ["/nowhere/*.jsonl"]}, "/nowhere"),
        ({"checkpoint": "/nowhere/at/all"}, "There is nothing at '/nowhere/at/all'"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, arguments, message):
    refused(message, **{"output_dir": str(tmp_path / "out"), **arguments})
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_missing_or_a_file_is_refused(tmp_path):
    refused("OUTPUT_DIR is not set", checkpoint="/x")
    (tmp_path / "file").write_text("kept")
    refused("is a file", checkpoint="/x", output_dir=str(tmp_path / "file"))


def test_folders_that_do_not_tell_are_refused(run, shared_data, tmp_path):
    out = {"output_dir": str(tmp_path / "out")}
    refused("is a Hugging Face folder", checkpoint=str(shared_data / "stories260K"), **out)
    refused("STEP = 41, but the run at .* has 40 steps", checkpoint=str(run), step=41, **out)
    never = write_run(tmp_path / "never", saved=None)
    (never / "checkpoints").mkdir(exist_ok=True)
    refused("has not saved a checkpoint yet", checkpoint=str(never), **out)
    record = json.loads((run / "data.json").read_text())
    del record["general"]["rows"]
    (run / "data.json").write_text(json.dumps(record))
    refused("does not tell where the rows of 'general' are: an older cptjax", checkpoint=str(run), **out)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_gone_moved_or_others_are_known(run, tmp_path):
    out = {"output_dir": str(tmp_path / "out"), "step": 1, "statistics": False}
    record = json.loads((run / "data.json").read_text())
    rows = {name: Path(record[name]["rows"]) for name in record}
    for name in ("rows", "held_out_rows"):
        record["target"][name] = record["target"][name].replace(str(rows["target"].parent.parent), "/gone")
    (run / "data.json").write_text(json.dumps(record))
    refused("'target', which .* was trained on, are not at /gone/.* any more", CptjaxError, checkpoint=str(run), **out)
    shutil.copytree(rows["target"].parent, run / "rows" / rows["target"].parent.name)
    inspect_data(checkpoint=str(run), **out)  # the folder was moved, with its rows in it
    record["target"]["rows"] = str(rows["general"])
    (run / "data.json").write_text(json.dumps(record))
    refused("holds other rows of 'target' now", CptjaxError, checkpoint=str(run), **out)
    record["target"].update(rows=str(rows["target"]), held_out_rows=str(rows["target"].parent / "validation"))
    record["target"]["held_out_tokens"] += 1
    (run / "data.json").write_text(json.dumps(record))
    refused("other held-out text of 'target'", CptjaxError, checkpoint=str(run), **out)
