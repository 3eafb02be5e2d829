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
from cptjax.checkpoints.store import CheckpointStore

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
    """Every array of the run's newest checkpoint: parameters, moments, what the guard remembers."""
    step = open_checkpoint(run).step
    store = CheckpointStore(run / "checkpoints")
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    saved = json.loads((store.path_of(step) / "metadata.json").read_text())["arrays"]
    wanted = {name: jax.ShapeDtypeStruct(a["shape"], a["dtype"], sharding=one) for name, a in saved.items()}
    return {name: np.asarray(array) for name, array in store._restore(step, wanted, True, "").items()}


def assert_same_bits(run: Path, whole: Path) -> None:
    """Every array that is saved, and the lineage."""
    mine, theirs = arrays(run), arrays(whole)
    assert set(mine) == set(theirs)
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in theirs)
    (one,), (other,) = (open_checkpoint(folder).lineage.runs for folder in (run, whole))
    assert dataclasses.replace(one, run="") == dataclasses.replace(other, run="")
