"""Temporary memory of the head's loss and gradients on TPUs that need not be there: compiled, not run.

    python tests/kernels/loss_on_tpus.py v5e:4x4 bfloat16

prints a line of JSON for each mesh and vocabulary: MiB on a device. 16 rows of 4096 tokens, width 2048. The second word is the
kernel's dtype: a kernel in float32, as training keeps it, is rounded in the same program. Needs the `aot` extra.
"""

import json
import os
import sys

from cptjax.benchmarks.ahead_of_time import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec  # noqa: E402

from cptjax.kernels.linear_cross_entropy import linear_cross_entropy  # noqa: E402
from cptjax.models.head import cut_over_mesh  # noqa: E402
from cptjax.sharding.mesh import AXES  # noqa: E402

ROWS, LENGTH, WIDTH = 16, 4096, 2048
VOCABULARIES = (32768, 262144)


def loss(hidden, kernel, targets):
    losses = linear_cross_entropy(hidden, kernel, targets, cut=cut_over_mesh(targets.shape, kernel.shape, 1))
    return jnp.sum(losses.nats + 1e-4 * losses.squared_log_total)


def temporary_bytes(mesh: Mesh, vocabulary: int, dtype: str) -> int:
    def spec(shape, dtype, *cut):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*cut)))

    hidden = spec((ROWS, LENGTH, WIDTH), "bfloat16", "fsdp")
    kernel = spec((WIDTH, vocabulary), dtype, "fsdp", "tensor")
    results = None, (hidden.sharding, kernel.sharding)
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.value_and_grad(loss, (0, 1)), out_shardings=results)
        compiled = gradient.lower(hidden, kernel, spec((ROWS, LENGTH), "int32", "fsdp")).compile()
    return compiled.memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    topology, dtype = sys.argv[1:]
    devices = np.array(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    for fsdp, tensor in ((16, 1), (4, 4)):
        mesh = Mesh(devices.reshape(1, fsdp, 1, tensor), AXES, axis_types=(AxisType.Auto,) * 4)
        for vocabulary in VOCABULARIES:
            found = temporary_bytes(mesh, vocabulary, dtype) / 2**20
            print(json.dumps({"fsdp": fsdp, "tensor": tensor, "vocabulary": vocabulary, "MiB": round(found, 1)}))
