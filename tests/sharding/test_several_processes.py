"""The global batch on 1, 2, 4 and 8 real processes: the same bits."""

import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from free_ports import free_port

from cptjax.data.batch import batch
from cptjax.data.blend import Ramp
from cptjax.data.packing import pack
from cptjax.data.plan import SourceInfo
from cptjax.data.planning import plan_data
from cptjax.data.rows import RowReader, RowWriter
from cptjax.training.batch_hash import batch_hash

pytestmark = pytest.mark.slow
ROOT, LENGTH = Path(__file__).parents[2], 32


JOINED = """
import signal
from cptjax.sharding.processes import join_processes
join_processes()
print("joined", flush=True)
signal.sigwait([signal.SIGUSR1])
"""


def test_sigterm_still_ends_a_process_that_has_joined_the_others():
    """JAX's preemption service would note it and tell nobody, until the training has a handler of its own."""
    several = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2", "PYTHONPATH": str(ROOT)}
    environments = [os.environ | several | {"JAX_PROCESS_ID": str(index)} for index in range(2)]
    program = [sys.executable, "-c", JOINED]
    both = [subprocess.Popen(program, env=env, stdout=subprocess.PIPE, text=True) for env in environments]
    try:
        for process in both:
            assert "joined\n" in iter(process.stdout.readline, "")
        both[1].send_signal(signal.SIGTERM)
        assert both[1].wait(timeout=20) == -signal.SIGTERM
    finally:
        for process in both:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """30 sources in 4 stages, one of them a ramp, tiny shares among them: (plan, readers, its file)."""
    folder, chance = tmp_path_factory.mktemp("mixture"), random.Random(7)
    readers, infos = {}, {}
    for n in range(30):
        writer = RowWriter(str(folder / f"s{n}"), LENGTH, 70_000)
        lengths = [chance.randint(2, 90) for _ in range(chance.randint(20, 60))]
        texts = ((i, np.arange(length) + 1000 * n + i) for i, length in enumerate(lengths))
        for row in pack(texts, LENGTH):
            writer.row(row)
        manifest = writer.finish(source=f"s{n}", split="train", files=(), tokenizer={}, start=1, eos=2, settings={})
        readers[f"s{n}"] = RowReader(str(folder / f"s{n}"))
        infos[f"s{n}"] = SourceInfo(manifest.rows, manifest.tokens, 1, 1, manifest.fingerprint, LENGTH)
    first = {f"s{n}": chance.choice([1.0, 0.3, 0.001]) for n in range(30)}
    last = {f"s{n}": chance.choice([1.0, 0.05]) for n in range(10, 30, 3)}
    stages = [("a", first, 30), ("ramp", Ramp(first, last), 40), ("b", last, 50), ("c", {"s3": 1, "s4": 1e-4}, 20)]
    plan = plan_data(stages, infos, batch_rows=16, seed=3)
    file = folder / "plan.json"
    content = {"plan": dataclasses.asdict(plan), "rows": {name: reader.folder for name, reader in readers.items()}}
    file.write_text(json.dumps(content), encoding="utf-8")
    return plan, readers, file


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_the_global_batch_of_a_step_has_the_same_bits(mixture, processes, tmp_path):
    plan, readers, file = mixture
    steps = [0, 29, 30, 55, 119, 120, 139]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    program = str(Path(__file__).with_name("one_of_several.py"))
    running = []
    for index in range(processes):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // processes}",
        }
        if processes > 1:
            several = (address, str(processes), str(index))
            names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
            environment |= dict(zip(names, several, strict=True))
        command = [sys.executable, program, str(file), str(tmp_path / f"{index}.npz"), *map(str, steps)]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0] * processes, errors[0][-3000:]
    found: dict[str, np.ndarray] = {}
    for index in range(processes):
        with np.load(tmp_path / f"{index}.npz") as arrays:
            mine = {name: arrays[name] for name in arrays.files}
        both = found.keys() & mine.keys()
        assert both == ({f"{step}/hash" for step in steps} if index else set())  # no row is on two processes
        assert all((found[name] == mine[name]).all() for name in both)
        found |= mine
    for step in steps:
        expected = batch(readers, plan, step)
        assert (found[f"{step}/hash"] == np.asarray(batch_hash(expected))).all()
        for name, array in expected.items():
            parts = {int(key.split("/")[2]): x for key, x in found.items() if key.startswith(f"{step}/{name}/")}
            whole = np.concatenate([parts[first] for first in sorted(parts)])
            assert whole.dtype == array.dtype and whole.tobytes() == array.tobytes(), (step, name)
