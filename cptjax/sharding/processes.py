"""Several processes that run one job together: one a host, each with its own devices."""

import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.errors import ConfigurationError

_Result = TypeVar("_Result")
_COORDINATOR, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join_processes() -> None:
    """Joins the other processes of the job, if there are any; before anything else asks JAX for devices.

    Where JAX_COORDINATOR_ADDRESS is set (host:port of the first process), JAX_NUM_PROCESSES and JAX_PROCESS_ID are too. On
    the hosts of a TPU slice, and under Slurm, JAX finds the others by itself.

    Raises:
        ConfigurationError: one of the three is missing, or is no number that it can be.
    """
    if address := os.environ.get(_COORDINATOR):
        try:
            count, index = int(os.environ[_COUNT]), int(os.environ[_INDEX])
            if not 0 <= index < count:
                raise ValueError
        except (KeyError, ValueError):
            raise ConfigurationError(
                f"{_COORDINATOR} = {address!r}, but {_COUNT} = {os.environ.get(_COUNT)!r} and {_INDEX} = "
                f"{os.environ.get(_INDEX)!r}.\n  Set how many processes there are, and which of them this is, counted from 0."
            ) from None
        jax.distributed.initialize(address, count, index)
    elif _on_several_hosts():
        jax.distributed.initialize()


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


def _on_several_hosts() -> bool:
    """Whether the environment speaks of more hosts than this one, as Cloud TPU and Slurm's srun set it."""
    hosts, tasks = os.environ.get("TPU_WORKER_HOSTNAMES", ""), os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ or (tasks.isdigit() and int(tasks) > 1)
