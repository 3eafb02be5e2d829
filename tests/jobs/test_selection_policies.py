"""Selections as a user runs them: every recipe, what they write, and a D4 that is killed in every stage."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, environment, run_main, write_corpus
from test_select_data import lines_of

from cptjax.data.sources import find_source
from cptjax.errors import ConfigurationError
from cptjax.jobs.select_data import select_data
from cptjax.selection.budgets import Budget
from cptjax.selection.policies import Random

KILLED = Path(__file__).parent / "killed_selection.py"
# What has appeared when the process is killed: it is then in the stage that follows.
STAGES = [
    "stages/units/units.npz",
    "stages/0_NearDuplicates/near_duplicates.npz",
    "stages/1_D4/embeddings/00001.npy",
    "stages/1_D4/embeddings/vectors.json",
    "stages/1_D4/clusters.npz",
    "stages/1_D4/semantic_duplicates.npz",
    "stages/1_D4/clusters_after.npz",
    "manifest.jsonl",
]
MADE = ["manifest.jsonl", "selected.jsonl.gz"]


@pytest.fixture(scope="module")
def given(shared_data, tmp_path_factory):
    """A corpus of a few hundred passages, and what recipes are told of it."""
    folder = tmp_path_factory.mktemp("selecting")
    corpus = write_corpus(folder / "text.jsonl.gz", 120)
    return [f"INPUT='{corpus}'", "UNIT='passages'", "PASSAGE_TOKENS=48"], f"'{shared_data / 'stories260K'}'", folder


def d4(given, folder):
    settings, embedder, _ = given
    small = ["CLUSTERS=8", "R=0.4", "ITERATIONS=10", "embedders.Embedder.rows=64"]
    return ["gin/recipes/select_d4.gin", *settings, *small, f"EMBEDDER={embedder}", f"OUTPUT_DIR='{folder}'"]


@pytest.mark.slow
def test_d4_killed_in_every_stage_selects_what_it_would_have(given, tmp_path):
    """Each stage is killed once, by SIGKILL; what is there then is what an undisturbed run writes."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, str(KILLED), *d4(given, "FOLDER")]
    done = subprocess.run(
        [*command, str(whole), str(killed), json.dumps(STAGES)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [-signal.SIGKILL] * len(STAGES)
    for name in MADE:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    manifest = lines_of(whole / "manifest.jsonl")
    assert {line["stage"] for line in manifest} == {None, "near_duplicates", "semantic_duplicates", "prototypes"}
    assert [line["id"] for line in manifest if line["kept"]] == [
        line["id"] for line in lines_of(whole / "selected.jsonl.gz")
    ]
    kept = json.loads((whole / "selection.json").read_text())
    left = sum(r["last_token"] - r["first_token"] for r in lines_of(whole / "selected.jsonl.gz"))
    assert kept["kept_tokens"] == left and "Dropped pairs: semantic duplicates" in (whole / "report.html").read_text()


@pytest.mark.slow
def test_every_policy_takes_anothers_place(given):
    settings, embedder, folder = given
    out = {}

    def select(name, recipe, *more):
        out[name] = folder / name
        run_main(f"gin/recipes/{recipe}.gin", *settings, *more, f"OUTPUT_DIR='{out[name]}'")
        return lines_of(out[name] / "manifest.jsonl")

    tokenizer = f"TOKENIZER={embedder}"
    drawn = select("drawn", "select_random", tokenizer, "R=0.5", "TRAIN_TOKENS=2000", "REGIME='fixed_compute'")
    matched = select("matched", "select_length_matched", tokenizer, f"SELECTION='{out['drawn']}'")
    assert sum(line["kept"] for line in drawn) == sum(line["kept"] for line in matched)
    assert {line["stage"] for line in drawn} == {None, "not_drawn", "random"}
    selection = json.loads((out["drawn"] / "selection.json").read_text())
    assert 2000 - 48 < selection["kept_tokens"] <= 2000 and selection["epochs"] == pytest.approx(1, abs=0.03)
    # The output is a source: what is nearest to itself is itself.
    near = select("near", "select_nearest", "EMBEDDER='tf-idf'", tokenizer, f"TARGET='{out['drawn']}'", "R=0.1")
    assert all(line["score"] > 0.999 for line in near if line["kept"])


def test_a_selection_that_was_begun_is_not_mistaken_for_another(given, tmp_path):
    corpus = find_source("INPUT", write_corpus(tmp_path / "text.jsonl.gz", 20).as_posix())
    told = {"input": corpus.files[0], "output_dir": str(tmp_path / "out")}
    half = Random(Budget(share=0.5, of="units"))
    select_data(**told, policy=half)
    record = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert record["kept_units"] == 10 and record["units"] == 20 and "tokens" not in record
    written = [(tmp_path / "out" / name).read_bytes() for name in MADE]
    select_data(**told, policy=half)  # done already
    (tmp_path / "out" / "selection.json").unlink()  # as if it had been killed at its very end
    with pytest.raises(ConfigurationError, match="another selection: of other policy"):
        select_data(**told, policy=Random(Budget(share=0.25, of="units")))
    with pytest.raises(ConfigurationError, match="another selection: of other units"):
        select_data(**told, policy=half, tokenizer=given[1].strip("'"))
    select_data(**told, policy=half)
    assert [(tmp_path / "out" / name).read_bytes() for name in MADE] == written
    with pytest.raises(ConfigurationError, match="TRAIN_TOKENS needs to know what a token is"):
        select_data(corpus.files[0], str(tmp_path / "other"), half, train_tokens=100)


def test_advice_on_a_selection_that_is_done_is_given_anew(given, tmp_path, capsys):
    _, tokenizer, _ = given
    corpus = write_corpus(tmp_path / "text.jsonl.gz", 20).as_posix()
    told = {"input": corpus, "output_dir": str(tmp_path / "out"), "policy": Random(Budget(share=0.5))}
    told["tokenizer"] = tokenizer.strip("'")
    select_data(**told, train_tokens=1000)
    record, page = (tmp_path / "out" / name for name in ("selection.json", "report.html"))
    first, kept = page.read_bytes(), json.loads(record.read_text())["kept_tokens"]
    capsys.readouterr()
    select_data(**told, train_tokens=1000)
    printed = capsys.readouterr().out
    assert f"{kept:,} selected tokens trained on for 1,000" in printed and "of another training" not in printed
    for asked in ({"train_tokens": 5e4}, {"train_tokens": 1000, "train_params": 1e8}):
        select_data(**told, **asked)
        printed = capsys.readouterr().out
        assert f"{kept:,} selected tokens trained on for {int(asked['train_tokens']):,}" in printed
        assert f"are of another training. To have them of this one, remove {record}" in printed
        assert page.read_bytes() == first
    record.unlink()  # as it says
    select_data(**told, train_tokens=5e4)
    assert page.read_bytes() != first


def test_a_process_that_does_not_see_what_the_first_has_begun_says_so(tmp_path, monkeypatch):
    corpus = write_corpus(tmp_path / "text.jsonl.gz", 5).as_posix()
    monkeypatch.setattr("cptjax.jobs.select_data.is_first", lambda: False)
    with pytest.raises(ConfigurationError, match="another one does not find.\n.* all hosts see"):
        select_data(corpus, str(tmp_path / "out"), Random(Budget(share=0.5, of="units")))
    assert not (tmp_path / "out").exists()  # nothing of another one's own
