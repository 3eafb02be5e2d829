"""Noise among the text, and a learning rate that is far too high: nothing of either reaches the parameters."""

import json
import re

import numpy as np
from commands import logged, run_main
from fault_runs import STEPS, arrays, start

from cptjax.checkpoints.source import open_checkpoint


def losses(run):
    return {line["step"]: line for line in logged(run) if "skipped" in line}


def run_to_its_end(arguments):
    """The exit code, and all that was printed."""
    process = start(*arguments)
    printed, _ = process.communicate(timeout=600)
    return process.returncode, printed


def test_spikes_are_skipped_and_said_and_the_run_goes_on(poisoned, tmp_path):
    run = tmp_path / "run"
    printed = run_main(*poisoned, f"OUTPUT_DIR='{run}'")
    skipped = [step for step, line in losses(run).items() if line["skipped"]]
    assert 2 <= len(skipped) <= 4 and "done:" in printed
    for step in skipped:
        assert f"step {step:,} is skipped" in printed and "deviations above the steps before" in printed
        assert losses(run)[step]["deviations"] > 5


def test_after_so_many_in_a_row_it_stops_naming_the_documents_and_goes_on_without_them(poisoned, tmp_path):
    run = tmp_path / "run"
    printed = run_main(*poisoned, f"OUTPUT_DIR='{run}'", "SPIKE_PATIENCE=1", code=1)
    assert "Traceback" not in printed and "general: " in printed and "noise" in printed
    before = losses(run)
    for _ in range(8):  # each batch of noise stops it once more
        skip = re.search(r"--gin\.SKIP_STEPS='(.*)'", printed)[1]
        arguments = [*poisoned, f"OUTPUT_DIR='{run}'", "SPIKE_PATIENCE=1", f"SKIP_STEPS={skip}"]
        code, printed = run_to_its_end(arguments)
        if code == 0:
            break
    assert code == 0, printed[-2000:]
    passed = [step for step, line in losses(run).items() if line.get("passed_over")]
    assert sorted(passed) == sorted(step for first, last in json.loads(skip) for step in range(first, last + 1))
    lineage = open_checkpoint(run).lineage.runs[-1]
    assert sum(stage.tokens for stage in lineage.stages) <= (STEPS // 4 - len(passed)) * 512  # unread is not counted
    assert sum(stage.tokens for stage in lineage.stages) > (STEPS // 4 - len(passed) - 2) * 512
    first = min(passed)
    assert all(losses(run)[step]["loss"] == before[step]["loss"] for step in range(1, first))


def test_what_is_not_finite_never_reaches_the_parameters(settings, tmp_path):
    run = tmp_path / "run"
    arguments = [*settings, f"OUTPUT_DIR='{run}'", "PEAK_LEARNING_RATE=1e30", "CLIP_NORM=None", "SAVE_EVERY=512"]
    printed = run_main(*arguments, "SPIKE_PATIENCE=5", code=1)
    assert "not finite" in printed and "5 steps one after another" in printed and "Traceback" not in printed
    assert all(np.isfinite(array).all() for array in arrays(run).values())
    assert len(losses(run)) < STEPS
