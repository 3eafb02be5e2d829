"""Optimizers, moments, frozen and averaged weights, as a user asks for them: macros, gin files, the command."""

import json
import shutil

import jax
import numpy as np
import pytest
from commands import ROOT, logged, run_main

from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.checkpoints.source import open_checkpoint
from cptjax.sharding.mesh import build_mesh

pytestmark = pytest.mark.slow
OPTIMIZERS = sorted(path.stem for path in (ROOT / "gin/recipes/optimizers").glob("*.gin"))
FREEZE = """
from cptjax.training import freezing
from cptjax.training import run

FREEZE = [@table/freezing.Freeze(), @lower/freezing.Freeze()]
table/freezing.Freeze.weights = "embedding.table"
lower/freezing.Freeze.weights = "layers.*"
lower/freezing.Freeze.layers = (0, 2)
lower/freezing.Freeze.until = "50%"
"""


def weights(path, step=None):
    mesh = build_mesh(None, jax.devices()[:1])
    return {name: np.asarray(array) for name, array in open_checkpoint(path, step).load_parameters(mesh).items()}


def branch_of(trunk, recipe, run):
    texts = [s for s in recipe if s.split("=")[0] in ("GENERAL", "TARGET", "ROWS_DIR")]
    sizes = ["SEQUENCE_LENGTH=64", "BATCH_TOKENS=512", "TRAIN_TOKENS=2048"]
    return ["gin/recipes/branch.gin", f"CHECKPOINT='{trunk}'", *texts, *sizes, f"OUTPUT_DIR='{run}'"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizers_recipe_trains_and_its_moments_go_on_bit_for_bit(optimizer, recipe, tmp_path):
    given = [recipe[0], f"gin/recipes/optimizers/{optimizer}.gin", *recipe[1:], "PEAK_LEARNING_RATE=1e-4"]
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    run_main(*given, f"OUTPUT_DIR='{whole}'")
    losses = [line["loss"] for line in logged(whole) if "loss" in line]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    shutil.copytree(whole, halved, ignore=shutil.ignore_patterns("finished.json"))
    first, *later = sorted((halved / "checkpoints").iterdir(), key=lambda folder: int(folder.name))
    assert later
    for folder in later:
        shutil.rmtree(folder)
    assert f"resume: from step {int(first.name)}" in run_main(*given, f"OUTPUT_DIR='{halved}'")
    mine, theirs = weights(halved), weights(whole)
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_moments_of_another_optimizer_are_refused_and_reset_on_request(finished_run, recipe, tmp_path):
    trunk, _ = finished_run
    lion = [*branch_of(trunk, recipe, tmp_path / "run"), "gin/recipes/optimizers/lion.gin"]
    refused = run_main(*lion, code=2)
    assert "AdamW" in refused and "Lion" in refused and "MOMENTS = 'reset'" in refused and "Traceback" not in refused
    assert "branch, its moments reset: from step 0" in run_main(*lion, "MOMENTS='reset'")


def test_moments_are_rebuilt_at_a_learning_rate_of_zero(recipe, shared_data, tmp_path):
    run = tmp_path / "run"
    run_main(*recipe, "REBUILD_MOMENTS='4 steps'", "SAVE_EVERY=512", "KEEP=100", f"OUTPUT_DIR='{run}'")
    rates = [line["learning_rate"] for line in logged(run) if "loss" in line]
    assert rates[:4] == [0, 0, 0, 0] and rates[4] == pytest.approx(5e-4)
    base = load_parameters(open_folder(shared_data / "stories260K"), build_mesh(None, jax.devices()[:1]))
    for step, same in ((4, True), (5, False)):
        there = weights(run, step)
        assert all(np.array_equal(there[name], base[name]) for name in base) is same


def test_frozen_weights_stay_and_thaw_when_the_gin_file_says(recipe, shared_data, tmp_path):
    run, mine = tmp_path / "run", tmp_path / "freeze.gin"
    mine.write_text(FREEZE)
    given = [recipe[0], str(mine), *recipe[1:], "SAVE_EVERY=2560", "KEEP=100"]  # every fifth of 40 steps
    printed = run_main(*given, f"OUTPUT_DIR='{run}'")
    assert "embedding.table" in printed  # the plan says what does not move
    base = load_parameters(open_folder(shared_data / "stories260K"), build_mesh(None, jax.devices()[:1]))
    query = "layers.attention.query.kernel"
    for step, frozen in ((20, True), (25, False)):
        there = weights(run, step)
        assert np.array_equal(there["embedding.table"], base["embedding.table"])
        assert np.array_equal(there[query][:2], base[query][:2]) is frozen
        assert not np.array_equal(there[query][2:], base[query][2:])


def test_the_average_is_evaluated_exported_and_started_from(recipe, tmp_path):
    run = tmp_path / "run"
    run_main(*recipe, "AVERAGE=0.9", f"OUTPUT_DIR='{run}'")
    (last,) = [line for line in logged(run) if line["step"] == 40 and "validation/target/loss" in line]
    assert last["validation_of_average/target/loss"] != last["validation/target/loss"]
    mine, average = weights(run), weights(run / "average")
    assert all(average[name].shape == mine[name].shape for name in mine)
    exports = {}
    for name, path in (("weights", run), ("average", run / "average")):
        exports[name] = tmp_path / name
        run_main("gin/jobs/export.gin", f"CHECKPOINT='{path}'", f"OUTPUT_DIR='{exports[name]}'")
    exported = weights(exports["average"])
    assert all(np.array_equal(exported[name], average[name]) for name in average)
    refused = run_main("gin/jobs/export.gin", f"CHECKPOINT='{run}'", f"OUTPUT_DIR='{exports['average']}'", code=2)
    assert "another export" in refused  # the weights are not their average
    told = json.loads((exports["average"] / "cptjax_export.json").read_text())
    assert told["source"].endswith("/average") and told["step"] == 40
    refused = run_main(*branch_of(run / "average", recipe, tmp_path / "branch"), code=2)
    assert "average of weights" in refused and "MOMENTS = 'reset'" in refused


def test_an_average_that_was_not_kept_is_not_there(finished_run, tmp_path):
    trunk, _ = finished_run
    given = ["gin/jobs/export.gin", f"CHECKPOINT='{trunk / 'average'}'", f"OUTPUT_DIR='{tmp_path / 'x'}'"]
    refused = run_main(*given, code=2)
    assert "no average of weights" in refused and "AVERAGE = 0.999" in refused and "Traceback" not in refused
