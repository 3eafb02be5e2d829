"""The store among real processes: killed at random moments, on a full disk, and on two hosts at once."""

import inspect
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absent import absent

from cptjax.checkpoints.store import CheckpointStore

ROOT = Path(__file__).parents[2]


def make_state(step):
    """A state that is a function of its step: whoever restores it can tell whether it is the right one."""
    return {"step": jnp.int32(step), "params": {"w": jax.random.normal(jax.random.key(step), (256, 512))}}


STATE = "import jax\nimport jax.numpy as jnp\n" + inspect.getsource(make_state)

SAVES_FOREVER = (
    STATE
    + """
import sys
from cptjax.checkpoints.store import CheckpointStore
store = CheckpointStore(sys.argv[1], keep=2)
step = store.latest() or 0
while True:
    step += 1
    store.save(step, make_state(step), {"step": step})
    print(step, flush=True)
"""
)


def python(program: str, *arguments: str, **variables: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_random_moments_every_listed_step_is_whole_and_right(tmp_path):
    chance = random.Random(0)
    shape = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make_state(0))
    newest, unfinished = 0, 0
    for _ in range(6):
        child = python(SAVES_FOREVER, str(tmp_path / "checkpoints"))
        try:
            begun = (int(line) for line in child.stdout if line.strip().isdigit())  # between its warnings
            reached = next(begun)
            for _ in range(chance.randrange(5)):
                next(begun)
            time.sleep(chance.uniform(0.0, 0.05))
        finally:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        assert reached == newest + 1  # it went on from the newest whole step

        store = CheckpointStore(tmp_path / "checkpoints")
        steps = store.steps()
        unfinished += len(list(store.directory.iterdir())) - len(steps)
        newest = max(steps, default=0)
        for step in steps:
            restored = store.restore(step, shape)
            assert store.metadata(step) == {"step": step} and int(restored["step"]) == step
            expected = make_state(step)["params"]["w"]
            assert np.asarray(restored["params"]["w"]).tobytes() == np.asarray(expected).tobytes()
    assert newest >= 6 and unfinished > 0  # it did save, and it was caught in the act


FULL_DISK = (
    STATE
    + """
import sys
from cptjax.checkpoints.store import CheckpointStore
from cptjax.errors import CptjaxError
store = CheckpointStore(sys.argv[1] + "/checkpoints")
store.save(1, make_state(1), {})
store.wait()
large = {"w": jax.random.normal(jax.random.key(0), (1024, 1024))}
for attempt in (2, 3):
    try:
        store.save(attempt, large, {})
        store.wait()
    except CptjaxError as error:
        print(error)
print("steps", store.steps())
store.save(4, make_state(4), {})
store.close()
store.verify(1), store.verify(4)
print("steps", store.steps())
"""
)


def test_a_full_disk_costs_that_save_alone_and_says_so_on_one_screen(tmp_path):
    mount = ["unshare", "--user", "--map-root-user", "--mount"]
    script = 'mount -t tmpfs -o size=3M none "$0" && exec "$1" -c "$PROGRAM" "$0"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROGRAM": FULL_DISK, "XLA_FLAGS": ""}
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        absent("this machine lets no user mount a small file system", "CPTJAX_REQUIRE_MOUNTS")
    command = [*mount, "sh", "-c", script, str(tmp_path), sys.executable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for step in (2, 3):
        assert f"The checkpoint of step {step} was not saved: no space is left (" in output
    assert "steps [1]\n" in output and "steps [1, 4]\n" in output
    # TensorStore may add a few lines of its own; the screens that Orbax logs are gone.
    assert "orbax" not in output and len(output.splitlines()) < 30, output


TWO_HOSTS = """
import faulthandler, os, sys
faulthandler.dump_traceback_later(90, exit=True)  # one host waits for ever for another that failed
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax
import jax.experimental.multihost_utils
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from cptjax.checkpoints.store import CheckpointStore
from cptjax.errors import CptjaxError
from cptjax.sharding.mesh import build_mesh

directory = sys.argv[3]
mesh = build_mesh({"fsdp": 4})
cut, whole = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())
make = jax.jit(lambda: {"w": jax.random.uniform(jax.random.key(5), (64, 32)), "n": jax.numpy.arange(3)},
               out_shardings={"w": cut, "n": whole})
state = make()
shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
store = CheckpointStore(directory, keep=2)
for step in (1, 2, 3):
    assert store.save(step, state, {"step": step})
store.wait()
assert store.steps() == [2, 3], store.steps()  # on every host, as soon as wait returns
restored = store.restore(3, shapes)
for name in state:
    for a, b in zip(restored[name].addressable_shards, state[name].addressable_shards):
        assert a.index == b.index and np.array_equal(np.asarray(a.data), np.asarray(b.data))

jax.experimental.multihost_utils.sync_global_devices("before the damage")
if jax.process_index() == 0:
    path = store.path_of(3) / "metadata.json"
    path.write_text(path.read_text() + " ")
jax.experimental.multihost_utils.sync_global_devices("after the damage")
try:
    store.restore(3, shapes)
except CptjaxError as error:
    assert "metadata.json" in str(error) and "Step 2 is intact" in str(error), error
    print("both hosts know")
assert store.save(4, state, {})
store.close()
assert store.steps() == [3, 4]
"""


def test_two_hosts_save_restore_and_learn_of_damage_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    hosts = [python(TWO_HOSTS, address, str(host), str(tmp_path / "checkpoints")) for host in (0, 1)]
    try:
        outputs = [host.communicate(timeout=120)[0] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    for host, output in zip(hosts, outputs, strict=True):
        assert host.returncode == 0 and "both hosts know" in output, output

    # One host reads what two have written.
    store = CheckpointStore(tmp_path / "checkpoints")
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = {"w": (64, 32), "n": (3,)}
    dtypes = {"w": jnp.float32, "n": jnp.int32}
    wanted = {name: jax.ShapeDtypeStruct(shapes[name], dtypes[name], sharding=one) for name in shapes}
    restored = store.restore(4, wanted)
    expected = jax.random.uniform(jax.random.key(5), (64, 32))
    np.testing.assert_array_equal(restored["w"], expected)
