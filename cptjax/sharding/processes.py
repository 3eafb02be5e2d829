"""Several processes that run one job together: one a host, each with its own devices."""

import os
from collections.abc import Callable
from typing import TypeVar

import jax

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
    """`work()` in every process; the first has finished it before the others begin: what it leaves on disk is done once."""
    if jax.process_count() == 1:
        return work()
    from jax.experimental import multihost_utils

    result = work() if jax.process_index() == 0 else None
    multihost_utils.sync_global_devices("first_then_others")
    return result if jax.process_index() == 0 else work()


def _on_several_hosts() -> bool:
    """Whether the environment speaks of more hosts than this one, as Cloud TPU and Slurm set it."""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1
