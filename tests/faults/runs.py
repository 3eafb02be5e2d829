"""What the fault tests do with runs: start them, wait for a step, compare them bit for bit."""

import dataclasses
import json
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
from commands import ROOT, command, environment

from cptjax.checkpoints.source import open_checkpoint
from cptjax.sharding.mesh import build_mesh

STEPS = 240


def start(*settings: str) -> subprocess.Popen:
    """The command in a process of its own, its output in a pipe."""
    return subprocess.Popen(
        command(*settings), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def last_step(run: Path) -> int:
    """The last step that the run has logged; 0 before the first."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines()[:-1] if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


def wait_for_step(process: subprocess.Popen, run: Path, step: int, seconds: float = 300) -> bool:
    """Returns once the step is logged, or, False, once the process has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if last_step(run) >= step:
            return True
        assert time.monotonic() < end, f"step {step} was not reached in {seconds:.0f} s"
        time.sleep(0.02)
    return False


def arrays(run: Path) -> dict[str, np.ndarray]:
    """The parameters of the run's newest checkpoint."""
    params = open_checkpoint(run).load_parameters(build_mesh(None, jax.devices()[:1]))
    return {name: np.asarray(array) for name, array in params.items()}


def assert_same_bits(run: Path, whole: Path) -> None:
    """Every parameter, and the lineage."""
    mine, theirs = arrays(run), arrays(whole)
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in theirs)
    (one,), (other,) = (open_checkpoint(folder).lineage.runs for folder in (run, whole))
    assert dataclasses.replace(one, run="") == dataclasses.replace(other, run="")
