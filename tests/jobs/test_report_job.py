"""`report` as a command: what it writes, what it refuses, and that a dry run leaves nothing."""

import json
import sys
from pathlib import Path

import pytest
from commands import run_main

sys.path.insert(0, str(Path(__file__).parents[1] / "reporting"))
from run_folders import evaluation_rows, write_run  # noqa: E402

from cptjax.configuration.catalogue import jobs  # noqa: E402
from cptjax.errors import ConfigurationError  # noqa: E402
from cptjax.jobs.report import report

ARMS = {
    "before": {"general": 3.6, "target": 4.6},
    "without": {"general": 4.1, "target": 3.5},
    "with": {"general": 3.7, "target": 3.6},
}


@pytest.fixture
def folders(tmp_path):
    return [str(write_run(tmp_path / name)) for name in ("first", "second")]


@pytest.fixture
def evaluation(tmp_path):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluation_rows(ARMS)))
    return str(folder)


def test_two_runs_and_their_evaluation_become_one_page(folders, evaluation, tmp_path):
    settings = [
        "gin/jobs/report.gin",
        f"CHECKPOINTS={ {'without': folders[0], 'with': folders[1]} }",
        f"EVALUATION='{evaluation}'",
        "BASE='before'",
        "TARGETS=['target']",
        "FORGETTING=['general']",
        "TITLE='A & B'",
        f"OUTPUT_DIR='{tmp_path / 'out' / 'report'}'",
    ]
    printed = run_main(*settings, "--dry_run")
    assert "would write" in printed and not (tmp_path / "out").exists()
    printed = run_main(*settings)
    assert f"without: {folders[0]}, step 60, finished" in printed
    page = (tmp_path / "out" / "report" / "report.html").read_text(encoding="utf-8")
    assert "<title>A &amp; B</title>" in page and "Gain on target against forgetting of general" in page
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out" / "report").iterdir()}
    assert set(written) == {"report.html", "tables.md", "tables.tex", "trades.jsonl"}
    assert '"metric": "on_frontier"' in written["trades.jsonl"]
    assert "| target target" in written["tables.md"] and r"\begin{tabular}{llrrrrr}" in written["tables.tex"]


def test_one_run_is_reported_into_its_own_folder(folders):
    report(folders[0], folders[0])
    first = (Path(folders[0]) / "report.html").read_bytes()
    report(folders[0], folders[0])
    assert (Path(folders[0]) / "report.html").read_bytes() == first


def test_a_wrong_folder_is_refused_without_a_traceback(tmp_path):
    printed = run_main(
        "gin/jobs/report.gin", f"CHECKPOINTS='{tmp_path / 'none'}'", f"OUTPUT_DIR='{tmp_path / 'out'}'", code=2
    )
    assert "There is nothing at" in printed and "Traceback" not in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoints": []}, "CHECKPOINTS is empty"),
        ({"base": "before"}, "there is no EVALUATION"),
        ({"base": "after", "evaluation": True}, "'after' is not among"),
        ({"targets": ["law"], "evaluation": True, "checkpoints": ["without", "with"]}, "TARGETS names 'law'"),
        (
            {"evaluation": True},
            "CHECKPOINTS has 'first', 'second', which the evaluation does not have: it has 'before'",
        ),
        ({"evaluation": "/nowhere"}, "EVALUATION = '/nowhere'"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(folders, evaluation, tmp_path, arguments, message):
    if arguments.get("evaluation") is True:
        arguments = {**arguments, "evaluation": evaluation}
    if arguments.get("checkpoints"):
        arguments = {**arguments, "checkpoints": dict(zip(arguments["checkpoints"], folders, strict=True))}
    with pytest.raises(ConfigurationError, match=message):
        report(**{"checkpoints": folders, "output_dir": str(tmp_path / "out"), **arguments})
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(folders, tmp_path):
    (tmp_path / "out").write_text("kept")
    with pytest.raises(ConfigurationError, match="is a file"):
        report(folders, str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "kept"


def test_the_job_is_listed():
    assert "report.html" in jobs()["report"]
