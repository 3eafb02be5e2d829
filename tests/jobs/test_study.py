"""A study as a user runs it: steps in processes of their own, stopped by real signals and started again."""

import json
import signal
import subprocess
import time

import pytest
from commands import ROOT, command, environment, run_main

STUDY = """
from __gin__ import dynamic_registration
from cptjax.jobs import study
from cptjax.studies import step

include "gin/jobs/study.gin"
DTYPE = "float32"

study.study.steps = [@trained/step.Step(), @exported/step.Step(), @scored/step.Step()]
trained/step.Step.name = "trained"
trained/step.Step.gin_files = "gin/recipes/reuse.gin"
trained/step.Step.settings = {trained}
exported/step.Step.name = "exported"
exported/step.Step.gin_files = ["gin/jobs/export.gin"]
exported/step.Step.settings = {{"CHECKPOINT": "{{trained}}", "export.dtype": %DTYPE}}
scored/step.Step.name = "scored"
scored/step.Step.gin_files = ["gin/jobs/score.gin"]
scored/step.Step.settings = {{"CHECKPOINT": "{{exported}}", "INPUT": "{texts}"}}
scored/step.Step.output = "OUTPUT"
"""


@pytest.fixture
def study(recipe, tmp_path):
    """The settings of a study of three steps in a folder whose name has a space and letters beyond ASCII."""
    settings = dict(setting.split("=", 1) for setting in recipe[1:])
    folder = tmp_path / "eine Übung"
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "Once upon a time"}\n')
    trained = "{" + ", ".join(f"{name!r}: {value}" for name, value in settings.items()) + "}"
    gin = tmp_path / "study.gin"
    gin.write_text(STUDY.format(trained=trained, texts=texts))
    return [str(gin), f"OUTPUT_DIR='{folder}'"], folder


def test_a_dry_run_shows_every_command_and_writes_nothing(study):
    settings, folder = study
    printed = run_main(*settings, "--dry_run")
    assert "1. trained: train" in printed and "3. scored: score" in printed
    assert f"--gin.CHECKPOINT='\"'\"'{folder}/trained'\"'\"''" in printed
    assert not folder.exists()


def test_a_wrong_step_is_refused_before_the_first_starts(study):
    settings, folder = study
    printed = run_main(*settings, "exported/step.Step.settings={'CHEKPOINT': '{trained}'}", code=2)
    assert "step 'exported' of the study: the macro CHEKPOINT is set" in printed and not folder.exists()


def test_a_table_that_no_step_writes_is_refused_before_the_first_starts(study):
    settings, folder = study
    printed = run_main(*settings, "study.study.results='scored'", code=2)
    assert "that step's job is 'score', which writes no evaluation.jsonl" in printed
    assert "it has no step of that name" in run_main(*settings, "study.study.results='tabel'", code=2)
    assert not folder.exists()


@pytest.mark.slow
def test_stopped_by_signals_and_started_again_it_ends_as_one_that_was_not(study, finished_run):
    settings, folder = study
    for number, sent in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)):
        metrics = folder / "trained" / "metrics.jsonl"
        before = metrics.stat().st_size if metrics.exists() else 0
        process = subprocess.Popen(
            command(*settings),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begin = time.monotonic()
        while not metrics.exists() or metrics.stat().st_size < before + 500:
            assert process.poll() is None and time.monotonic() < begin + 200, process.communicate()[0]
            time.sleep(0.05)
        process.send_signal(sent)  # to the study alone: it is the study that tells its step
        printed = process.communicate(timeout=120)[0]
        if sent != signal.SIGKILL:
            assert process.returncode == 75, printed
            assert f"stopped by {sent.name}" in printed and "the study was stopped in step 'trained'" in printed
            attempts = json.loads((folder / "steps" / "trained.json").read_text())["attempts"]
            assert [attempt["code"] for attempt in attempts] == [75] * (number + 1)
        assert not (folder / "trained" / "finished.json").exists()
    # The killed study's training notices that it is alone and stops; communicate() above returned when it had.
    printed = run_main(*settings)
    assert "--- 3 of 3: scored (score)" in printed and "done:" in printed
    whole = finished_run[0] / "metrics.jsonl"
    assert _losses(metrics) == _losses(whole)
    assert len((folder / "scored").read_text().splitlines()) == 1

    printed = run_main(*settings)
    assert "1. trained: train, done before" in printed and "--- " not in printed
    printed = run_main(*settings, "DTYPE='bfloat16'", code=2)
    assert "done under other settings: 'exported', 'scored'" in printed and "+DTYPE" not in printed

    printed = run_main("gin/jobs/reproduce.gin", f"CHECKPOINT='{folder}'")
    assert "can be repeated: all is as it was" in printed
    for what in ("trained: configuration", "trained: base: ", "trained: text: target", "exported: configuration"):
        assert f"same     {what}" in printed

    # A step that is removed is not redone under what was made of it.
    (folder / "trained").rename(folder / "away")
    printed = run_main(*settings, code=2)
    assert "exported: made of 'trained', which is to be run again" in printed and f"{folder / 'scored'}" in printed
    (folder / "away").rename(folder / "trained")

    # Killed between the export and its record: the export knows its own.
    record = folder / "steps" / "exported.json"
    content = json.loads(record.read_text())
    content["done"], content["attempts"][-1]["code"] = False, None
    record.write_text(json.dumps(content))
    (folder / "scored").unlink()
    assert "nothing to do" in run_main(*settings)


@pytest.mark.slow
def test_a_step_that_fails_is_named_and_the_others_are_kept(study, finished_run):
    settings, folder = study
    trained = finished_run[0]
    printed = run_main(
        *settings,
        "study.study.steps=[@exported/step.Step(), @scored/step.Step()]",
        f"exported/step.Step.settings={{'CHECKPOINT': '{trained}'}}",
        "scored/step.Step.settings={'CHECKPOINT': '{exported}', 'INPUT': '/nowhere.jsonl'}",
        code=2,
    )
    assert "INPUT = '/nowhere.jsonl' does not exist" in printed
    assert "step 'scored' of the study failed with exit code 2" in printed and "Traceback" not in printed
    assert (folder / "exported" / "config.json").exists()


def _losses(path):
    return [
        {name: value for name, value in json.loads(line).items() if name != "tokens_per_second"}
        for line in path.read_text().splitlines()
    ]
