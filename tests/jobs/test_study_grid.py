"""A study with a grid as a user runs it: declared, costed, run, concluded from, and its table read by the laws."""

import json
import math

import pytest
from commands import run_main, write_corpus

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
trunk/arms.Arm.tokens = [2048, 3072]
trunk/arms.Arm.learning_rates = "scratch"
trunk/arms.Arm.schedule = "constant"
trunk/arms.Arm.plateau = True
scratch/arms.Arm.name = "scratch"
scratch/arms.Arm.blend = {{"target": 1.0}}
scratch/arms.Arm.target = "target"
scratch/arms.Arm.tokens = [2048]
scratch/arms.Arm.learning_rates = [1e-3, 4e-3, 16e-3]
continued/arms.Arm.name = "continued"
continued/arms.Arm.start = "trunk"
continued/arms.Arm.prior = [2048]
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


def test_a_dry_run_tells_the_cost_and_starts_nothing(study):
    settings, folder = study
    printed = run_main(*settings, "--dry_run")
    assert "continued below scratch at size A after 2,048 target tokens" in printed and "no verdict" in printed
    assert "rates of scratch                 A     3    6.14k" in printed and "in all" in printed
    assert not folder.exists()


@pytest.mark.slow
def test_a_grid_is_run_to_its_conclusion(study, shared_data, tmp_path):
    settings, folder = study
    printed = run_main(*settings)
    conclusion = folder / "conclusion"
    assert "# No verdict" in printed and "What a verdict would cost: " in printed
    verdict = json.loads((conclusion / "verdict.json").read_text())
    assert verdict["verdict"] == "no verdict" and verdict["seeds"] == 2
    rows = [json.loads(line) for line in (conclusion / "runs.jsonl").read_text().splitlines()]
    by_arm = {(row["arm"], row["seed"]): row for row in rows}
    assert len(rows) == 6 and not by_arm["trunk", 0]["annealed"] and by_arm["scratch", 0]["annealed"]
    continued = by_arm["continued", 1]
    # It continues the trunk's checkpoint at 2,048 tokens, not its end; replay comes on top of 2,048 target tokens.
    assert continued["trunk"] == "runs_A_0_constant/trunk_3072_seed1, step 4"
    assert (
        1900 < continued["prior_tokens"] <= 2048
        and continued["flops_own"] == 6 * 512 * by_arm["scratch", 0]["flops"] / 2048
    )
    assert continued["flops_with_trunk"] == continued["flops"] + by_arm["trunk", 1]["flops"] * 4 / 6
    table = read_runs(str(conclusion / "tables" / "continued.jsonl"))
    assert len(table) == 2 and set(table.names) == {"seed", "trunk", "arm"} and table.annealed.all()
    assert not (conclusion / "tables" / "trunk.jsonl").exists()  # a trunk's points are not annealed
    printed = run_main(
        "gin/jobs/fit_law.gin",
        f"RUNS='{conclusion}/tables/scratch.jsonl'",
        "LAW='chinchilla'",
        f"OUTPUT_DIR='{tmp_path}/fit'",
        "ALLOW=['units']",
        code=2,
    )
    assert "params is 252144 in every run" in printed

    # A run of the group is the run that `train` makes of the same settings.
    rate = json.loads((folder / "rates_scratch_A" / "rates.json").read_text())["best"]
    run_main("gin/recipes/pretrain.gin", "MODEL='ladder'", "LADDER_SIZE='A'", f"TOKENIZER='{shared_data / 'stories260K'}'",
             f"GENERAL='{tmp_path}/target.jsonl.gz'", "SOURCES={'target': %GENERAL}", "BLEND={'target': 1.0}",
             f"PEAK_LEARNING_RATE={rate}", "FINAL_LEARNING_RATE='peak/20'", "SEED=1001",
             "start.Random.seed=1", "TRAIN_TOKENS=2048", "BATCH_TOKENS=512",
             "SEQUENCE_LENGTH=64", "VALIDATION_TOKENS=2048", f"OUTPUT_DIR='{tmp_path}/alone'")  # fmt: skip
    alone, grouped = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (tmp_path / "alone", folder / "runs_A_0_rewarm" / "scratch_2048_seed1")
    )
    losses = [line["loss"] for line in alone if "loss" in line]
    assert len(losses) == 4
    assert [line["loss"] for line in grouped if "loss" in line] == pytest.approx(losses, rel=1e-5)
    assert grouped[-1]["validation/target/loss"] == pytest.approx(alone[-1]["validation/target/loss"], rel=1e-5)
    assert by_arm["scratch", 1]["bits_per_byte"] == pytest.approx(
        alone[-1]["validation/target/bits_per_byte"], rel=1e-5
    )
    assert math.isfinite(verdict["difference"]["low"])

    # Once declared, it stays so; what is done is not done again.
    refused = run_main(*settings, "EFFECT=0.5", code=2)
    assert "declared otherwise" in refused or "done under other settings: 'conclusion'" in refused
    assert "--- " not in run_main(*settings)
