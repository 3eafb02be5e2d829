"""Several processes that run one job together: one a host, each with its own devices."""

import os
import platform
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.errors import ConfigurationError
from cptjax.hosts.finding import find_processes
from cptjax.hosts.roll_call import timing_of
from cptjax.hosts.worker import tell_joining

_Result = TypeVar("_Result")
# The supervisors (hosts/) name a process that is lost or did not come; JAX's own limits are behind theirs.
_HEARTBEAT_SECONDS = 50
_AFTER_SUPERVISOR_SECONDS = 60
_VISIBLE = ("jax_cuda_visible_devices", "jax_rocm_visible_devices")


def join_processes() -> None:
    """Joins the other processes of the job, if there are any (hosts/finding.py); before anything else asks JAX for devices.

    Raises:
        ConfigurationError: half of what says where they are is there; the message names what is not.
    """
    found = find_processes()
    if found is None:
        return
    print(
        f"process {found.index} of {found.count}, on {platform.node()}: by {found.way}; the first is at {found.address}",
        flush=True,
    )
    tell_joining()
    # It would take SIGTERM for itself, and nobody here asks it: a signal that came before the loop would be lost.
    jax.config.update("jax_enable_preemption_service", False)
    seconds = timing_of().start + _AFTER_SUPERVISOR_SECONDS
    given = {} if found.by_jax else {"num_processes": found.count, "process_id": found.index}
    jax.distributed.initialize(
        None if found.by_jax else found.address,
        **given,
        initialization_timeout=int(seconds),
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
    if has_host_to_itself(os.environ) and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        # In a step of Slurm JAX takes one GPU for each task, by the task's number on its host: the others would lie idle.
        for name in _VISIBLE:
            jax.config.update(name, "all")


def has_host_to_itself(environment: Mapping[str, str]) -> bool:
    """Whether Slurm says that each host of this step, or of this allocation, has one task ("1(x4)")."""
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE") or ""
    return re.fullmatch(r"1(\(x\d+\))?(,1(\(x\d+\))?)*", tasks) is not None


def first_then_others(work: Callable[[], _Result]) -> _Result:
    """`work()` in every process; the first has finished it before the others begin: what it leaves on disk is done once.

    Raises:
        ConfigurationError: in the others, where the first one failed, which says why.
    """
    if jax.process_count() == 1:
        return work()
    from jax.experimental import multihost_utils

    first, result, failure = jax.process_index() == 0, None, None
    if first:
        try:
            result = work()
        except Exception as error:  # told to the others, who would wait for it, and raised then
            failure = error
    if multihost_utils.broadcast_one_to_all(np.int32(failure is not None)):
        raise failure or ConfigurationError("the first process failed, and says why; this one ends with it.")
    return result if first else work()


def is_first() -> bool:
    """Whether this is the process that speaks and writes."""
    return jax.process_index() == 0


def all_say(yes: bool) -> bool:
    """Whether every process says so here; the same answer in all of them."""
    if jax.process_count() == 1:
        return yes
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.int32(yes))))


def number_of_first(number: int) -> int:
    """What the first process says here, in every process."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def from_first(array: np.ndarray) -> np.ndarray:
    """What the first process has here, in every process; all have one of its shape."""
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(array))


def asked_by(mesh: Mesh, asked: bool) -> jax.Array:
    """int32 [devices]: 1 on this process's devices where it was asked to stop. The sum tells every process the same."""
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    everyone = np.full((mesh.size,), asked, np.int32)
    return jax.make_array_from_callback(everyone.shape, sharding, lambda index: everyone[index])
