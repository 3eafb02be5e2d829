"""A run of two and of four processes: the same rows as one, losses to float tolerance; stopped, killed and refused together."""

import os
import signal
import subprocess
import time

import pytest
from commands import ROOT, command, ends_named, environment, logged, read, start, training_of, wait_for_steps

from cptjax.checkpoints.source import open_checkpoint

pytestmark = pytest.mark.slow


def losses(run):
    return [line["loss"] for line in logged(run) if "loss" in line]


def test_a_signal_to_one_of_four_stops_all_at_the_same_step_and_two_go_on_with_the_same_bits(
    recipe, finished_by_two, tmp_path
):
    run = tmp_path / "run"
    settings = [*recipe, f"OUTPUT_DIR='{run}'"]
    four = start(4, *settings, devices=1)
    wait_for_steps(four, run, 2)
    four[2].send_signal(signal.SIGTERM)
    printed = [process.communicate(timeout=120)[0] for process in four]
    assert [process.returncode for process in four] == [75] * 4, printed[0][-3000:] + printed[2][-3000:]
    step = open_checkpoint(run).step
    for index, said in enumerate(printed):
        by = "SIGTERM" if index == 2 else "a signal to another process"
        assert f"stopped by {by} after step {step}; all is saved" in said, said[-3000:]
    both = start(2, *settings)
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed[0][-3000:] + printed[1][-3000:]
    assert f"resume: from step {step}" in printed[0]
    whole, _ = finished_by_two
    assert logged(run) == logged(whole)  # as many devices: every number but those of the clock


def test_after_the_first_of_two_is_killed_the_restart_has_the_same_bits(recipe, finished_by_two, tmp_path):
    run = tmp_path / "run"
    settings = [*recipe, f"OUTPUT_DIR='{run}'"]
    both = start(2, *settings)
    wait_for_steps(both, run, 14)
    began = time.monotonic()
    os.kill(training_of(both[0]), signal.SIGKILL)
    ends_named(both, began, 0, "SIGKILL")
    both = start(2, *settings)
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed[0][-3000:]
    assert "resume: from step" in printed[0]
    whole, _ = finished_by_two
    assert logged(run) == logged(whole)  # every number but those of the clock


def test_what_is_wrong_is_said_once_and_both_end(recipe, tmp_path):
    (tmp_path / "bad.jsonl").write_text("not JSON\n")
    kept = [s for s in recipe if not s.startswith(("TARGET", "ROWS_DIR"))]
    both = start(2, *kept, f"TARGET='{tmp_path / 'bad.jsonl'}'", f"OUTPUT_DIR='{tmp_path / 'run'}'")
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [2, 2], printed[0][-3000:] + printed[1][-3000:]
    assert "bad.jsonl, line 1 is not JSON" in printed[0] and "the first process failed" in printed[1]
    assert not any("Traceback" in each for each in printed)


def test_two_processes_are_one_run(finished_by_two, finished_run):
    (whole, _), (run, printed) = finished_run, finished_by_two
    assert "process 0 of 2" in printed[0] and "all 2 processes have come" in printed[0] and "done:" in printed[0]
    assert "process 1 of 2" in printed[1] and "step" not in printed[1]  # the first alone speaks and writes
    assert read(run) == read(whole)  # the same rows at every step
    assert losses(run) == pytest.approx(losses(whole), rel=1e-4)  # sums in another order


def test_half_of_what_several_processes_need_is_refused(recipe, tmp_path):
    environ = {**environment(), "JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2"}
    environ.pop("JAX_PROCESS_ID", None)
    done = subprocess.run(
        command(*recipe, f"OUTPUT_DIR='{tmp_path / 'run'}'"), cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 2 and "JAX_PROCESS_ID = None" in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
