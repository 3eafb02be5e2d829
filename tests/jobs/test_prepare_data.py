"""The job as a user runs it: rows that a run finds, whatever made them, and refusals."""

import gzip
import json
import os
import signal
import time
import types

import pytest
from commands import run_main, start, write_corpus

from cptjax.data.rows import read_manifest


def fingerprints(rows):
    """Of every split in a folder of rows."""
    return {
        (path.parent.parent.name, path.parent.name): read_manifest(path.parent).fingerprint
        for path in rows.glob("*/*/manifest.json")
    }


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    web, law = write_corpus(folder / "web.jsonl.gz", 300), write_corpus(folder / "law.jsonl.gz", 200, seed=5)
    return {"web": str(web), "law": str(law)}


@pytest.fixture
def settings(corpora, shared_data):
    return [
        "gin/jobs/prepare_data.gin",
        f"SOURCES={corpora}",
        f"TOKENIZER='{shared_data / 'stories260K'}'",
        "SEQUENCE_LENGTH=64",
        "VALIDATION_FRACTION=0.1",
    ]


def test_rows_are_prepared_once_and_told_of(settings, tmp_path):
    rows = tmp_path / "rows"
    printed = run_main(*settings, f"OUTPUT_DIR='{rows}'", "--dry_run")
    assert "web.jsonl.gz" in printed and "rows of 64" in printed and not rows.exists()
    printed = run_main(*settings, f"OUTPUT_DIR='{rows}'", "PROCESSES=1")
    assert "web: 2" in printed and "% filled)" in printed and "held out" in printed
    made = fingerprints(rows)
    assert {split for _, split in made} == {"train", "validation"} and len(made) == 4
    printed = run_main(*settings, f"OUTPUT_DIR='{rows}'")
    assert "preparing" not in printed and fingerprints(rows) == made  # found, by any number of processes
    run_main(*settings, f"OUTPUT_DIR='{tmp_path / 'more'}'", "PROCESSES=2")
    assert fingerprints(tmp_path / "more") == made


@pytest.mark.parametrize("options", [[], ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]])
def test_apache_beam_makes_the_same_rows(settings, tmp_path, options):
    pytest.importorskip("apache_beam", reason="needs the `text` extra")
    run_main(*settings, f"OUTPUT_DIR='{tmp_path / 'here'}'")
    beam = [f"OUTPUT_DIR='{tmp_path / 'beam'}'", "RUNNER='DirectRunner'", f"BEAM_OPTIONS={options}"]
    run_main(*settings, *beam, f"SCRATCH='{tmp_path / 'scratch'}'")
    assert fingerprints(tmp_path / "beam") == fingerprints(tmp_path / "here")
    assert not list((tmp_path / "scratch").iterdir())  # taken away when done


def test_best_fit_and_exams_are_other_rows(settings, corpora, tmp_path):
    exam = tmp_path / "exam.jsonl"
    with gzip.open(corpora["web"], "rt", encoding="utf-8") as lines:
        words = json.loads(next(lines))["text"].split()
    exam.write_text(json.dumps({"question": " ".join(words[:13]), "choices": ["a", "b"], "answer": 0}) + "\n")
    printed = run_main(
        *settings, f"OUTPUT_DIR='{tmp_path / 'rows'}'", "PACKING='best_fit'", f"DECONTAMINATE=['{exam}']"
    )
    assert "1 documents hold 1 exam items and are left out" in printed and "best_fit" in printed
    (web,) = (tmp_path / "rows").glob("web-*")
    kept = [read_manifest(web / split) for split in ("train", "validation")]
    assert sum(manifest.documents for manifest in kept) == 299
    assert kept[0].settings["contamination"] == {"documents": 1, "items": 1}


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("SOURCES={}", "no sources were given"),
        ("SOURCES={'web': '/nowhere/*.jsonl'}", "nothing matches /nowhere/*.jsonl"),
        ("SEQUENCE_LENGTH=0", "SEQUENCE_LENGTH"),
        ("PACKING='tight'", "PACKING is 'tight'; it is 'concatenate_and_split' or 'best_fit'"),
        ("PROCESSES=0", "PROCESSES"),
        ("BEAM_OPTIONS=['--x']", "set RUNNER too"),
        ("DECONTAMINATE=['/nowhere/exam.jsonl']", "/nowhere/exam.jsonl"),
        ("VALIDATION_FRACTION=3", "it must lie between 0 and 0.5"),
    ],
)
def test_what_cannot_be_is_refused(settings, tmp_path, setting, complaint):
    for flags in ([], ["--dry_run"]):
        printed = run_main(*settings, setting, f"OUTPUT_DIR='{tmp_path / 'rows'}'", *flags, code=2)
        assert complaint in printed and "Traceback" not in printed
    assert not list(tmp_path.glob("rows/*/*"))


def test_cores_and_beam_are_not_asked_for_together(settings, tmp_path):
    printed = run_main(*settings, "PROCESSES=2", "RUNNER='DirectRunner'", f"OUTPUT_DIR='{tmp_path}/rows'", code=2)
    assert "set one of them" in printed


def test_a_file_in_the_place_of_the_folder_is_refused(settings, tmp_path):
    (tmp_path / "rows").write_text("mine")
    printed = run_main(*settings, f"OUTPUT_DIR='{tmp_path / 'rows'}'", code=2)
    assert "rows' is a file" in printed and (tmp_path / "rows").read_text() == "mine"


def test_text_of_which_exams_leave_nothing_is_refused(shared_data, tmp_path):
    text = " ".join(f"word{n}" for n in range(20))
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": text}) + "\n" + json.dumps({"question": text, "text": text}) + "\n"
    )
    source = f"SOURCES={{'law': '{tmp_path / 'a.jsonl'}'}}"
    given = ["gin/jobs/prepare_data.gin", source, f"TOKENIZER='{shared_data / 'stories260K'}'", "SEQUENCE_LENGTH=64"]
    exam = f"DECONTAMINATE=['{tmp_path / 'a.jsonl'}']"
    printed = run_main(*given, exam, f"OUTPUT_DIR='{tmp_path / 'rows'}'", code=2)
    assert "none is left to train on" in printed and not list((tmp_path / "rows").glob("law-*"))


@pytest.mark.parametrize(
    ("runner", "options", "complaint"),
    [
        ("NoSuchRunner", [], "RUNNER = 'NoSuchRunner'"),
        ("DirectRunner", ["--direct_num_workers=abc"], "invalid int value: 'abc'"),
        ("DirectRunner", ["--nonsense=4"], "Apache Beam has no option nonsense here"),
    ],
)
def test_what_beam_does_not_know_is_refused(settings, tmp_path, runner, options, complaint):
    pytest.importorskip("apache_beam", reason="needs the `text` extra")
    beam = [f"RUNNER='{runner}'", f"BEAM_OPTIONS={options}"]
    printed = run_main(*settings, *beam, f"OUTPUT_DIR='{tmp_path / 'rows'}'", code=2)
    assert complaint in printed and "Traceback" not in printed


def test_stopped_by_a_signal_it_says_so_and_goes_on(settings, corpora, tmp_path):
    long = tmp_path / "long.jsonl"
    long.write_text("".join(json.dumps({"text": f"{n} " + "once upon a time " * 500}) + "\n" for n in range(1500)))
    given = [*settings, f"SOURCES={{'long': '{long}'}}", f"OUTPUT_DIR='{tmp_path / 'rows'}'"]
    (job,) = start(1, *given)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "rows").glob(".long-*.unfinished/tokens-?????")):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    printed = job.communicate(timeout=60)[0]
    assert job.returncode == 75 and "stopped by SIGTERM" in printed and "what is done is kept" in printed
    assert "going on with what was prepared before" in run_main(*given)


def test_a_dry_run_leaves_an_interrupted_preparation_alone(corpora, shared_data, tmp_path):
    unfinished = tmp_path / "rows" / ".general-0.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "tokens-00000").write_text("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cptjax.training.plan.plan_run", lambda run, rows_root: os.listdir(rows_root))
        from cptjax.training.plan import dry_plan

        run = types.SimpleNamespace(rows_dir=str(tmp_path / "rows"), output_dir=str(tmp_path / "run"))
        with dry_plan(run) as seen:
            assert seen == []
    assert (unfinished / "tokens-00000").read_text() == "half"
