"""Killed at any moment, a run ends as if it had not been; asked to stop, it saves within a bound."""

import random
import signal
import time

from commands import run_main
from fault_runs import STEPS, assert_same_bits, last_step, start, wait_for_step

from cptjax.checkpoints.source import open_checkpoint

KILLS = 20
STOP_SECONDS = 30  # a step and a save take far less; an evaluation is not waited for


def test_twenty_random_kills_change_no_bit(settings, whole, tmp_path):
    run, rng = tmp_path / "killed", random.Random(0)
    killed = 0
    while killed < KILLS:
        process = start(*settings, f"OUTPUT_DIR='{run}'")
        # Somewhere after the last kill: while it starts, trains, evaluates or saves, a random moment later.
        goal = min(STEPS - 2, last_step(run) + rng.randrange(0, 16))
        alive = wait_for_step(process, run, goal) if goal else True
        time.sleep(rng.uniform(0, 0.4) if goal else rng.uniform(1, 6))
        assert alive, f"it ended by itself after {killed} kills:\n{process.stdout.read()[-3000:]}"
        process.kill()
        process.communicate()
        killed += 1
    printed = run_main(*settings, f"OUTPUT_DIR='{run}'")
    assert "done:" in printed
    assert_same_bits(run, whole)


def test_sigterm_saves_within_a_bound_and_exits_75(settings, whole, tmp_path):
    run = tmp_path / "stopped"
    arguments = [*settings, f"OUTPUT_DIR='{run}'", "SAVE_EVERY=30720"]
    process = start(*arguments)
    assert wait_for_step(process, run, 10)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 75 and "stopped by SIGTERM" in printed and "Traceback" not in printed
    assert time.monotonic() - began < STOP_SECONDS
    saved = open_checkpoint(run).step
    assert 10 <= saved < STEPS
    run_main(*arguments)
    assert_same_bits(run, whole)


def test_a_signal_in_the_midst_of_an_evaluation_does_not_wait_for_its_end(settings, whole, tmp_path):
    run = tmp_path / "evaluating"
    # Batches of one row, and half of the text held out: an evaluation takes many times as long as the bound.
    held_out = [
        "VALIDATION_FRACTION=0.5",
        "VALIDATION_TOKENS=1e6",
        "BATCH_TOKENS=64",
        "TRAIN_TOKENS=3200",
        "EVAL_EVERY=64",
    ]
    arguments = [*settings, *held_out, f"OUTPUT_DIR='{run}'", f"ROWS_DIR='{tmp_path / 'rows'}'"]
    process = start(*arguments)
    assert wait_for_step(process, run, 1)  # each step is followed by an evaluation
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 75 and "all is saved" in printed and "Traceback" not in printed
    process = start(*arguments)
    assert wait_for_step(process, run, 5)
    process.kill()
    assert "resume: from step" in process.communicate()[0]
