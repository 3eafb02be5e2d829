"""Prompts that a run continues as it trains: read by people, and nothing to the training."""

import json

import jax
import pytest
from commands import run_main
from test_train import assert_same_run

from cptjax.checkpoints.source import open_checkpoint
from cptjax.evaluation.generate import generate
from cptjax.models.numerics import Numerics
from cptjax.reporting.lines_by_step import SAMPLES, LinesByStep
from cptjax.sharding.mesh import build_mesh

PROMPTS = ["Once upon a time", "", "Lily"]


@pytest.mark.slow
def test_a_run_that_writes_samples_is_the_run_that_does_not(finished_run, recipe, tmp_path, monkeypatch):
    whole, _ = finished_run
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    settings = [
        f"OUTPUT_DIR='{tmp_path / 'run'}'",
        "SAMPLE_EVERY=8192",
        f"SAMPLE_PROMPTS={PROMPTS}",
        "MAX_NEW_TOKENS=20",
    ]
    printed = run_main(*recipe, *settings)
    assert_same_run(tmp_path / "run", whole)
    assert printed.count("Finished XLA compilation of jit(train_step)") == 1
    assert printed.count("Finished XLA compilation of jit(_write)") == 2  # a prompt of one token is not read before
    lines = [json.loads(line) for line in (tmp_path / "run" / SAMPLES).read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["prompt"]) for line in lines] == [(s, p) for s in (0, 16, 32, 40) for p in PROMPTS]
    first, *_, last = (line["text"] for line in lines if line["prompt"] == PROMPTS[0])
    assert first.startswith("Once upon a time, there was") and last.startswith("Once upon a time") and last != first
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "What it writes" in page and last in page and "(nothing)" in page
    opened = open_checkpoint(tmp_path / "run")
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    given = [line["tokens"][:1] for line in lines if line["step"] == 40 and not line["prompt"]]
    (again,) = generate(opened.load_parameters(mesh), opened.config, Numerics(), mesh, given, 20, temperature=0, eos=2)
    assert again in [line["tokens"] for line in lines]


def test_a_log_that_goes_on_has_each_step_once(tmp_path):
    def steps(folder):
        return [json.loads(line)["step"] for line in (folder / SAMPLES).read_text().splitlines()]

    begun = LinesByStep(tmp_path / SAMPLES)
    for step in (0, 8, 16):
        begun.log(step, [{"prompt": "a", "text": f"a{step}"}, {"prompt": "b", "text": "b"}])
    resumed = LinesByStep(tmp_path / SAMPLES, 8)
    assert resumed.has(0) and resumed.has(8) and not resumed.has(16)
    resumed.log(16, [{"prompt": "a", "text": "new"}])
    assert steps(tmp_path) == [0, 0, 8, 8, 16]
    assert not LinesByStep(tmp_path / SAMPLES).has(0)  # from the beginning again: everything is written anew
    LinesByStep(tmp_path / SAMPLES, 8, write=False).log(24, [{"prompt": "a", "text": ""}])
    assert steps(tmp_path) == [0, 0, 8, 8, 16]
