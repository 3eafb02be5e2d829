"""A study with a grid as a user runs it: declared, costed, run, concluded from, and its table read by the laws."""

import json
import math

import pytest
from commands import run_main, write_corpus

from cptjax.errors import ConfigurationError
from cptjax.jobs.fit_law import fit_law
from cptjax.scaling.runs import read_runs

STUDY = """
from __gin__ import dynamic_registration
from cptjax.jobs import study
from cptjax.studies import arms
from cptjax.studies import grid

include "gin/jobs/study.gin"
EFFECT = 0.02
study.study.steps = []
study.study.grid = @grid.Grid()
grid.Grid.sizes = ["A"]
grid.Grid.sources = {{"general": "{folder}/general.jsonl.gz", "target": "{folder}/target.jsonl.gz"}}
grid.Grid.arms = [@trunk/arms.Arm(), @scratch/arms.Arm(), @continued/arms.Arm()]
grid.Grid.seeds = 2
grid.Grid.contrast = @arms.Contrast()
grid.Grid.tokenizer = "{tokenizer}"
grid.Grid.rows_dir = "{{study}}/rows"
grid.Grid.rates_at = ["A"]
grid.Grid.batch_tokens = 512
grid.Grid.sequence_length = 64
grid.Grid.smoke = True
grid.Grid.allow_edge = True
grid.Grid.widen = 0
grid.Grid.settings = {{"VALIDATION_TOKENS": 2048}}
grid.Grid.speed = 1e9
arms.Contrast.better = "continued"
arms.Contrast.worse = "scratch"
arms.Contrast.size = "A"
arms.Contrast.tokens = 2048
arms.Contrast.effect = %EFFECT
trunk/arms.Arm.name = "trunk"
trunk/arms.Arm.blend = {{"general": 1.0}}
trunk/arms.Arm.target = "general"
trunk/arms.Arm.tokens = [2048]
trunk/arms.Arm.learning_rates = "scratch"
scratch/arms.Arm.name = "scratch"
scratch/arms.Arm.blend = {{"target": 1.0}}
scratch/arms.Arm.target = "target"
scratch/arms.Arm.tokens = [2048]
scratch/arms.Arm.learning_rates = [1e-3, 4e-3, 16e-3]
continued/arms.Arm.name = "continued"
continued/arms.Arm.start = "trunk"
continued/arms.Arm.blend = {{"target": 0.8, "general": 0.2}}
continued/arms.Arm.target = "target"
continued/arms.Arm.tokens = [2048]
continued/arms.Arm.learning_rates = "scratch"
"""


@pytest.fixture
def study(shared_data, tmp_path):
    """The study's settings, and its folder."""
    write_corpus(tmp_path / "general.jsonl.gz", 150)
    write_corpus(tmp_path / "target.jsonl.gz", 150, seed=5)
    gin = tmp_path / "study.gin"
    gin.write_text(STUDY.format(folder=tmp_path, tokenizer=shared_data / "stories260K"))
    return [str(gin), f"OUTPUT_DIR='{tmp_path / 'study'}'"], tmp_path / "study"


@pytest.mark.slow
def test_a_grid_is_run_to_its_conclusion(study, tmp_path):
    settings, folder = study
    printed = run_main(*settings)
    conclusion = folder / "conclusion"
    assert "in all" in printed and "# No verdict" in printed and "What a verdict would cost: " in printed
    verdict = json.loads((conclusion / "verdict.json").read_text())
    assert verdict["verdict"] == "no verdict" and verdict["seeds"] == 2
    rows = [json.loads(line) for line in (conclusion / "runs.jsonl").read_text().splitlines()]
    by_arm = {(row["arm"], row["seed"]): row for row in rows}
    assert len(rows) == 6 and all(row["annealed"] for row in rows)
    continued = by_arm["continued", 1]
    # It continues the trunk of its own seed; replay comes on top of 2,048 target tokens.
    assert continued["trunk"] == "runs_A_0_rewarm/trunk_2048_seed1"
    assert 1900 < continued["prior_tokens"] <= 2048 and continued["flops_own"] == 1.25 * by_arm["scratch", 0]["flops"]
    assert continued["flops_with_trunk"] == continued["flops"] + by_arm["trunk", 1]["flops"]
    table = read_runs(str(conclusion / "tables" / "continued.jsonl"))
    assert len(table) == 2 and set(table.names) == {"seed", "trunk", "arm"} and table.annealed.all()
    with pytest.raises(ConfigurationError, match="params is 252144 in every run"):
        fit_law(str(conclusion / "tables" / "scratch.jsonl"), "chinchilla", str(tmp_path / "fit"), allow=["units"])
    assert math.isfinite(verdict["difference"]["low"]) and verdict["rates"]["scratch at A"]["bracketed"] is False
