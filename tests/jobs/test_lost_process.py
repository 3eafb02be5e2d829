"""One of several processes is lost: the others name it and end within a minute, and the run goes on from what is saved."""

import os
import signal
import subprocess
import time

import pytest
from absent import absent
from commands import (
    LOST,
    SECONDS,
    command,
    ends_named,
    environment,
    logged,
    read,
    run_main,
    start,
    start_one,
    training_of,
    wait_for_steps,
)

from cptjax.checkpoints.source import open_checkpoint

pytestmark = pytest.mark.slow


def test_after_one_of_four_faults_one_process_goes_on_with_the_same_rows(recipe, finished_run, tmp_path):
    run = tmp_path / "run"
    settings = [*recipe, f"OUTPUT_DIR='{run}'"]
    four = start(4, *settings, devices=1)
    wait_for_steps(four, run, 10)
    began = time.monotonic()
    os.kill(training_of(four[2]), signal.SIGSEGV)
    ends_named(four, began, 2, "SIGSEGV")
    assert "resume: from step" in run_main(*settings)
    whole, _ = finished_run
    assert read(run) == read(whole)
    ours, theirs = ([line["loss"] for line in logged(each) if "loss" in line] for each in (run, whole))
    assert ours == pytest.approx(theirs, rel=1e-4)  # sums in another order


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture
def two_hosts():
    """Names of two network namespaces with a cable between them, 10.77.0.1 and 10.77.0.2; needs the right to make them."""
    names = [f"cptjax{os.getpid()}-{index}" for index in range(2)]
    try:
        made = [ip("netns", "add", name) for name in names]
        made.append(
            ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        )
    except FileNotFoundError:
        absent("there is no `ip` here", "CPTJAX_REQUIRE_NAMESPACES")
    try:
        if any(done.returncode for done in made):
            said = " ".join(done.stderr.strip() for done in made)
            absent(f"no network namespaces can be made here: {said}", "CPTJAX_REQUIRE_NAMESPACES")
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/30", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def start_on(hosts, *settings):
    """A process in each namespace."""
    several = {"JAX_COORDINATOR_ADDRESS": "10.77.0.1:23456", "JAX_NUM_PROCESSES": "2"}
    both = []
    for index, name in enumerate(hosts):
        # Gloo listens at the address of the host's name, so each is called by its address.
        inside = ["unshare", "--uts", "sh", "-c", f'hostname 10.77.0.{index + 1} && exec "$@"', "sh"]
        both.append(
            start_one(
                ["ip", "netns", "exec", name, *inside, *command(*settings)],
                environment(2) | several | {"JAX_PROCESS_ID": str(index)},
            )
        )
    return both


def test_a_signal_on_one_host_saves_on_both_and_one_that_is_cut_off_is_named(recipe, two_hosts, tmp_path):
    run = tmp_path / "run"
    settings = [*recipe, f"OUTPUT_DIR='{run}'", "TRAIN_TOKENS=1e6", "SAVE_EVERY=1e6", "EVAL_EVERY=1e6"]
    both = start_on(two_hosts, *settings)
    wait_for_steps(both, run, 2)
    both[1].send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=SECONDS)[0] for process in both]
    step = open_checkpoint(run).step
    assert [process.returncode for process in both] == [75] * 2, ends
    assert f"stopped by a signal to another process after step {step}; all is saved" in ends[0]
    assert f"stopped by SIGTERM after step {step}; all is saved" in ends[1]

    both = start_on(two_hosts, *settings)
    wait_for_steps(both, run, step + 2)
    began = time.monotonic()
    assert ip("-n", two_hosts[1], "link", "set", "cable", "down").returncode == 0
    ends = [process.communicate(timeout=SECONDS)[0] for process in both]
    assert time.monotonic() - began < SECONDS and [process.returncode for process in both] == [LOST] * 2, ends
    # Each side sees the other go: from the one that is cut off it looks the same.
    assert "process 1 of 2 (host 10.77.0.2) is lost: nothing was heard of it for 20 s" in ends[0]
    assert "process 0 of 2 (host 10.77.0.1) is lost: nothing was heard of it for 20 s" in ends[1]
