"""An export killed (SIGKILL) before every single thing that it does to files: what opens is whole, and it can be run again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import identity, open_folder
from cptjax.errors import CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.llama import LLAMA
from cptjax.models.model import initialize
from cptjax.sharding.mesh import build_mesh

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")]
ROOT = Path(__file__).parents[2]
TINY = DecoderConfig(vocabulary=48, hidden=16, layers=2, heads=4, kv_heads=2, head_dim=4, mlp=24)

# Forks before JAX has started anything: imports are done once. Child n is killed before its n-th step, or gets through.
KILLED_EVERYWHERE = """
import os, shutil, signal, sys, threading
from cptjax.checkpoints import safetensors_writing
from cptjax.jobs.export import export

source, folder = sys.argv[1:]
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.copyfile")


def killed_at(step, destination):
    done, lock = 0, threading.Lock()

    def count():
        nonlocal done
        with lock:
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    def hook(event, arguments):
        if not arguments or not str(arguments[0]).startswith(destination):
            return
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            count()

    in_order = safetensors_writing.in_order

    def counted(*arguments):
        count()
        return in_order(*arguments)

    safetensors_writing.in_order = counted
    sys.addaudithook(hook)
    export(source, destination, shard_bytes=8000)


def forked(work, *arguments):
    child = os.fork()
    if not child:
        work(*arguments)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


for step in range(1000):
    os.mkdir(f"{folder}/{step}")
    code = forked(killed_at, step, f"{folder}/{step}/out")
    if code == 0:
        break
    assert code == -signal.SIGKILL, (step, code)
    if step % 4 == 0:
        shutil.copytree(f"{folder}/{step}", f"{folder}/{step} again")
        assert forked(export, source, f"{folder}/{step} again/out", None, "float32", 8000) == 0, step
print(step)
"""


def test_killed_before_every_step(tmp_path):
    one = build_mesh({"fsdp": 1}, jax.devices()[:1])
    export_folder(initialize(TINY, 0, one), TINY, LLAMA, None, None, tmp_path / "source")
    done = subprocess.run(
        [sys.executable, "-c", KILLED_EVERYWHERE, str(tmp_path / "source"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    steps = int(done.stdout.splitlines()[-1])
    assert steps > 20
    whole = identity(open_folder(tmp_path / "source"))
    broken = 0
    for left in (left for step in range(steps) for left in (tmp_path / str(step)).iterdir()):
        try:
            opened = open_folder(left)
        except CptjaxError:
            broken += 1
        else:
            assert identity(opened) == whole, left
    assert broken > 10  # the kills did strike in the middle
    for folder in (tmp_path / str(steps), *tmp_path.glob("* again")):
        assert [path.name for path in folder.iterdir()] == ["out"]
        assert identity(open_folder(folder / "out")) == whole
        assert json.loads((folder / "out" / "cptjax_export.json").read_text())["made_of"]["weights"] == whole
