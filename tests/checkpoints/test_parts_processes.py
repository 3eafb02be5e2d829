"""A checkpoint read by two real processes: each reads its half of every tensor, and together they have what one has."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.models.config import DecoderConfig
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.phi3 import PHI_3
from cptjax.models.model import initialize
from cptjax.sharding.mesh import build_mesh

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SIZES = {"vocabulary": 64, "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 4, "head_dim": 8, "mlp": 48}

READS = """
import json, sys
import jax
import numpy as np
from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.checkpoints.safetensors import SafetensorsFile
from cptjax.sharding.mesh import build_mesh
from cptjax.sharding.processes import join_processes

folder, sizes, output = sys.argv[1:]
join_processes()
rows, read = {}, SafetensorsFile.read


def counted(self, name, which=slice(None)):
    found = read(self, name, which)
    rows[name] = rows.get(name, 0) + len(found)
    return found


SafetensorsFile.read = counted
opened = open_folder(folder)
params = load_parameters(opened, build_mesh(json.loads(sizes)))
of_all = {name: count / opened.tensors[name].specs[name].shape[0] for name, count in rows.items()}
shards = {}
for name, array in params.items():
    for shard in array.addressable_shards:
        shards[f"{name}|{json.dumps([list(part.indices(size)) for part, size in zip(shard.index, array.shape)])}"] = shard.data
np.savez(f"{output}/{jax.process_index()}.npz", rows=json.dumps(of_all), **shards)
export_folder(params, opened.decoder_config, opened.family, opened.config, None, f"{output}/back", shard_bytes=20_000)
"""


@pytest.mark.parametrize(
    "family, sizes",
    [(LLAMA, {"fsdp": 4}), (PHI_3, {"tensor": 2, "fsdp": 2}), (LLAMA, {"replica": 2, "fsdp": 2})],
    ids=["fsdp", "several weights in one tensor", "replicas"],
)
def test_two_processes_read_a_half_each_and_export_what_they_read(tmp_path, family, sizes):
    config = DecoderConfig(**SIZES)
    one = build_mesh({"fsdp": 1}, jax.devices()[:1])
    export_folder(initialize(config, 0, one), config, family, None, None, tmp_path / "model")
    expected = load_parameters(open_folder(tmp_path / "model"), one)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    running = []
    for index in range(2):
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
        }
        command = [sys.executable, "-c", READS, str(tmp_path / "model"), json.dumps(sizes), str(tmp_path)]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors[0][-3000:]
    share = 1 if "replica" in sizes else 0.5  # replicas hold everything, each of them
    for index in range(2):
        with np.load(tmp_path / f"{index}.npz") as found:
            rows = json.loads(str(found["rows"]))
            for key in found.files:
                if key != "rows":
                    name, _, place = key.partition("|")
                    cut = tuple(slice(*part) for part in json.loads(place))
                    np.testing.assert_array_equal(found[key], expected[name][cut], err_msg=key)
        matrices = {name: part for name, part in rows.items() if "norm" not in name}
        assert len(matrices) == (10 if family is PHI_3 else 16) and set(matrices.values()) == {share}
    back = open_folder(tmp_path / "back")
    for name, file in open_folder(tmp_path / "model").tensors.items():
        np.testing.assert_array_equal(back.tensors[name].read(name), file.read(name), err_msg=name)
