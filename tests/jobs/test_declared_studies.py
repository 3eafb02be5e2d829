"""The five papers' studies and their smoke runs: each declares its contrast and its cost, and nothing starts."""

import re
import shlex

import pytest
from commands import ROOT, write_corpus

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.main import main

REQUIRED = {
    "reuse": ("TECHNICAL", "PROSE", "GERMAN", "CHINESE", "QUESTIONS"),
    "cross_lingual": ("GENERAL", "CHINESE", "GERMAN"),
    "split": ("FIRST", "SECOND", "THIRD"),
    "domain": ("GENERAL", "CORPUS", "SEED_TEXTS", "HELD_OUT_DOMAIN"),
    "d4": ("HELD_OUT",),
}


@pytest.fixture
def declared(tmp_path, monkeypatch, capsys):
    """What --dry_run prints of a study in gin/studies, and the FLOPs that it says."""

    def printed(paper, study, *more):
        monkeypatch.chdir(ROOT)
        text, folder = write_corpus(tmp_path / "text.jsonl.gz", 8), tmp_path / "study"
        given = [f"--gin.{macro}='{text}'" for macro in REQUIRED[paper]]
        assert (
            main([f"--gin_file=gin/studies/{study}.gin", f"--gin.OUTPUT_DIR='{folder}'", *given, *more, "--dry_run"])
            == 0
        )
        assert not folder.exists()
        said = capsys.readouterr().out
        amount, unit = re.search(r"(?m)^in all +\d+ +\S+ +([\d.]+)([MBT])", said).groups()
        return said, float(amount) * {"M": 1e6, "B": 1e9, "T": 1e12}[unit]

    return printed


@pytest.mark.parametrize("paper", REQUIRED)
def test_a_smoke_run_declares_minutes_and_no_verdict(paper, declared):
    said, flops = declared(paper, f"{paper}_smoke")
    assert "primary contrast: " in said and "a smoke run: no verdict" in said
    assert flops < 3e13  # 25 minutes at 20 GFLOP/s


@pytest.mark.slow
@pytest.mark.parametrize("paper", REQUIRED)
def test_a_study_declares_hours_and_a_verdict(paper, declared):
    said, flops = declared(paper, paper)
    assert "primary contrast: " in said and "3 seeds" in said and "smoke run" not in said
    assert 5e14 < flops < 5e15  # 7 hours to 3 days


def test_the_split_that_laws_choose_is_trained_beside_the_others(declared):
    chosen = {"TRUNK": 2.1e6, "FIRST": 3e5, "SECOND": 2e5, "THIRD": 4e5}
    said, flops = declared("split", "split_chosen", *(f"--gin.CHOSEN_{name}={n}" for name, n in chosen.items()))
    assert "primary contrast: first below whole at size C after 300,000 tokens" in said and "3 seeds" in said
    assert all(arm in said for arm in ("trunk", "fixed_third", "wider")) and 1e14 < flops < 5e14


@pytest.mark.parametrize(
    "given, asked",
    [
        ((), ["domain_cloze.jsonl"]),
        (("BAR_EXAM='/exams/bar.jsonl'",), ["domain_cloze.jsonl", "/exams/bar.jsonl"]),
        (
            ("EXAMS='/exams/own.jsonl'", "BAR_EXAM=['/exams/a.jsonl', '/exams/b.jsonl']"),
            ["own", "/exams/a", "/exams/b"],
        ),
    ],
)
def test_a_bar_exam_is_asked_beside_the_generated_one(given, asked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = write_corpus(tmp_path / "text.jsonl.gz", 8)
    settings = (
        f"GENERAL='{text}'",
        f"HELD_OUT_DOMAIN='{text}'",
        "DOMAIN_SHARE=0.1",
        f"OUTPUT_DIR='{tmp_path / 'out'}'",
    )
    flags = [f"--gin.{each}" for each in (*settings, *given)]
    assert main(["--gin_file=gin/studies/domain_exams.gin", *flags, "--dry_run"]) == 0
    (exams,) = re.findall(r"--gin.EXAMS=(.*?)' '?--gin", capsys.readouterr().out)
    assert all(name in exams for name in asked) and exams.count(".jsonl") == len(asked)


def test_the_header_of_the_measures_has_commands_that_stay_in_one_study(monkeypatch):
    """Of the study and of its smoke run: where runs are read, vocabulary and rows are. And it says whether it was run."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "gin/studies/domain_measures.gin").read_text()
    header = re.sub("(?m)^# ?", "", text.partition("from __gin__")[0]).replace("\\\n", " ")
    shown = [shlex.split(each)[3:] for each in re.findall("(?m)^ *python -m .*", header)]
    studies = []
    for arguments in shown:
        folders = re.findall(r"'(runs/\w+)(?:/tokenizer|/rows)?'", configure(parse_command(arguments)).settings)
        (study,) = {folder for folder in folders if not folder.endswith("_measures")}
        studies.append(study)
    assert studies == ["runs/domain", "runs/domain_smoke"]
    assert "Expect" in header or "Not run yet" in header
