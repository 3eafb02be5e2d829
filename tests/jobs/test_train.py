"""The trunk's path as a user takes it: a Hugging Face folder in, a run, kills and restarts."""

import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from commands import ROOT, command, environment, logged, run_main, start_one

from cptjax.checkpoints.source import open_checkpoint
from cptjax.sharding.mesh import build_mesh

pytestmark = pytest.mark.slow
STEPS, SWITCH = 40, 29  # cosine to 1/100 falls to a fifth at 0.7113 of the run: step 28.45
SLOW_SAVE = """
import sys, time
from cptjax.checkpoints import store
from cptjax.main import main
write = store.write_digests
store.write_digests = lambda folder: (print("saving", folder.name, flush=True), time.sleep(2), write(folder))
sys.exit(main())
"""


def parameters(run):
    params = open_checkpoint(run).load_parameters(build_mesh(None, jax.devices()[:1]))
    return {name: np.asarray(array) for name, array in params.items()}


def assert_same_run(run, whole):
    """Every logged number but the speed, and every bit of the parameters."""
    assert logged(run) == logged(whole)
    (mine,), (theirs,) = (open_checkpoint(folder).lineage.runs for folder in (run, whole))
    assert dataclasses.replace(mine, run="") == dataclasses.replace(theirs, run="")
    mine, theirs = parameters(run), parameters(whole)
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_the_run_is_what_the_recipe_says(finished_run):
    folder, printed = finished_run
    lines = [line for line in logged(folder) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[0]["learning_rate"] == pytest.approx(5e-4)
    assert lines[-1]["learning_rate"] == pytest.approx(5e-6, rel=0.2)  # the step before the very end
    assert [line["tokens_read"] for line in lines[:2]] == [512, 1024]
    lineage = open_checkpoint(folder).lineage
    general, target = lineage.runs[0].stages
    assert (general.name, target.name) == ("general", "target")
    assert general.weights == {"general": 1.0} and target.weights == {"general": 0.1, "target": 0.9}
    assert general.tokens == pytest.approx(SWITCH * 512, rel=0.01)
    assert lineage.runs[0].annealed and lineage.origin.kind == "hugging_face"
    rows = {name: exposure.rows for name, exposure in lineage.exposures().items()}
    replayed = (STEPS - SWITCH) * 8 * 0.1
    assert abs(rows["general"] - (SWITCH * 8 + replayed)) <= 1
    assert sum(rows.values()) == STEPS * 8
    assert "target" in printed and "ETA" in printed


def test_both_sources_are_evaluated_before_and_after_and_get_better(finished_run):
    folder, _ = finished_run
    lines = {line["step"]: line for line in logged(folder) if "validation/target/loss" in line}
    assert set(lines) == {0, 16, 32, STEPS}
    for source in ("general", "target"):
        for metric in ("loss", "bits_per_byte"):
            name = f"validation/{source}/{metric}"
            assert lines[STEPS][name] < lines[0][name] - 0.1
    assert (folder / "tensorboard").is_dir() and (folder / "config.gin").is_file()


def test_started_again_it_says_so_and_ends(recipe, finished_run):
    folder, _ = finished_run
    before = logged(folder)
    assert "finished" in run_main(*recipe, f"OUTPUT_DIR='{folder}'")
    assert logged(folder) == before


def test_the_folders_own_configuration_runs_again(finished_run, tmp_path):
    folder, _ = finished_run
    again = tmp_path / "again"
    run_main(f"{folder / 'config.gin'}", f"OUTPUT_DIR='{again}'")
    assert_same_run(again, folder)


def kill_at(run, settings, step, devices=1):
    """Starts the run and kills it with SIGKILL once `step` is logged, and a random moment later."""
    process = subprocess.Popen(
        command(*settings), cwd=ROOT, env=environment(devices), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            metrics = run / "metrics.jsonl"
            text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""
            if any(json.loads(line)["step"] >= step for line in text.splitlines()[:-1]):
                break
            time.sleep(0.02)
        else:
            raise AssertionError(f"the run ended before step {step}, with exit code {process.returncode}")
        time.sleep(random.Random(step).uniform(0, 0.3))
    finally:
        process.kill()
        process.wait()


def test_killed_at_three_moments_it_ends_bit_for_bit_as_the_uninterrupted_run(recipe, finished_run, tmp_path):
    whole, _ = finished_run
    run = tmp_path / "killed"
    settings = [*recipe, f"OUTPUT_DIR='{run}'"]
    for step in (3, 14, 31):
        kill_at(run, settings, step)
    printed = run_main(*settings)
    assert "resume: from step" in printed
    assert_same_run(run, whole)


def test_sigterm_saves_and_exits_75_and_the_same_command_goes_on(recipe, finished_run, tmp_path):
    whole, _ = finished_run
    run = tmp_path / "stopped"
    settings = [*recipe, f"OUTPUT_DIR='{run}'", "SAVE_EVERY=20480"]
    process = subprocess.Popen(
        command(*settings), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count('"loss"') >= 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 75, printed
    assert "stopped by SIGTERM" in printed and "Traceback" not in printed
    saved = open_checkpoint(run).step
    assert 0 < saved < STEPS
    # Going on, it is asked to stop again, while the last step is being saved: that is waited for, and nothing is left to do.
    going = start_one([sys.executable, "-c", SLOW_SAVE, *command(*settings)[3:]], environment())
    printed = ""
    while "saving" not in (line := going.stdout.readline()):
        assert line, printed
        printed += line
    time.sleep(0.3)  # from the loop's end to where it waits
    going.send_signal(signal.SIGTERM)
    printed += going.communicate(timeout=120)[0]
    assert going.returncode == 0 and f"resume: from step {saved:,}" in printed, printed
    assert_same_run(run, whole)


def test_another_mesh_reads_the_same_rows_and_agrees(recipe, finished_run, tmp_path):
    whole, _ = finished_run
    run = tmp_path / "sharded"
    settings = [*recipe, f"OUTPUT_DIR='{run}'"]
    kill_at(run, [*settings, "MESH={'fsdp': -1, 'tensor': 2}"], 10, devices=8)
    run_main(*settings, "MESH={'replica': 2, 'fsdp': 2}", devices=4)  # restarted on other devices
    mine = [line["loss"] for line in logged(run) if "loss" in line]
    theirs = [line["loss"] for line in logged(whole) if "loss" in line]
    assert mine == pytest.approx(theirs, rel=1e-4)  # 40 steps of float32 sums in another order


def test_a_changed_run_in_the_same_folder_is_refused_with_the_difference(recipe, finished_run):
    folder, _ = finished_run
    printed = run_main(*recipe, f"OUTPUT_DIR='{folder}'", "BATCH_TOKENS=1024", code=2)
    assert "batch_rows: 8 there, 16 now" in printed and "Traceback" not in printed


def test_another_base_in_the_same_folder_is_refused_and_never_ignored(recipe, finished_run):
    folder, _ = finished_run
    printed = run_main(*recipe, f"OUTPUT_DIR='{folder}'", "HF_CHECKPOINT='/data/other'", code=2)
    assert "start.checkpoint" in printed and "/data/other now" in printed


def test_what_a_start_that_saved_nothing_left_is_replaced(recipe, shared_data, finished_run, tmp_path):
    """A first try with another base ended before its first checkpoint: its config.json must not stay."""
    whole, _ = finished_run
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("checkpoints", "finished.json"))
    config = json.loads((run / "model" / "config.json").read_text())
    (run / "model" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    run_main(*recipe, f"OUTPUT_DIR='{run}'")
    assert_same_run(run, whole)


def test_without_the_bases_learning_rate_it_is_refused(recipe, tmp_path):
    settings = [s for s in recipe if not s.startswith("BASE_FINAL_LR")]
    printed = run_main(*settings, f"OUTPUT_DIR='{tmp_path / 'run'}'", code=2)
    assert "BASE_FINAL_LR" in printed and "Traceback" not in printed
    assert not (tmp_path / "run").exists()


def test_a_dry_run_leaves_nothing_behind(recipe, tmp_path):
    printed = run_main(*recipe, f"OUTPUT_DIR='{tmp_path / 'run'}'", "--dry_run")
    assert "layers.attention.query.kernel" in printed and "epochs" in printed and "target" in printed
    assert not (tmp_path / "run").exists()
