"""Jobs that one process does: where a command was started on several hosts, the first does it and the others have nothing to do.

Done by all, each of them believing that it is alone, they would write one folder at once.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from cptjax.hosts.finding import ADDRESS, COUNT, INDEX, Found, has_tpu
from cptjax.hosts.worker import tell_alone

_Job = TypeVar("_Job", bound=Callable[..., Any])
_PLATFORMS = "JAX_PLATFORMS"


def together(job: _Job) -> _Job:
    """Marks a job that all processes of a run do together: it calls `sharding.processes.join_processes`."""
    job.together = True
    return job


def is_together(job: Callable[..., Any]) -> bool:
    """Whether `job` is marked so."""
    return getattr(job, "together", False)


def do_alone(name: str, found: Found, tpu: bool | None = None) -> bool:
    """Whether this process is the one that does the job `name`; what it starts in turn is then no part of several either.

    A slice of TPUs answers only when all of its hosts ask, so that one of them alone computes on its CPU, unless JAX_PLATFORMS
    says otherwise. The lines that are printed say so.

    Args:
        tpu: whether this machine has TPU chips; None: looked up.
    """
    tell_alone()
    if found.index:
        print(
            f"process {found.index} of {found.count} has nothing to do: the job {name!r} is done by process 0 alone.",
            flush=True,
        )
        return False
    on = ""
    if _PLATFORMS not in os.environ and (has_tpu() if tpu is None else tpu):
        on = f", on its CPU: the TPU of one host does not answer without the others' ({_PLATFORMS} says otherwise)"
        os.environ[_PLATFORMS] = "cpu"
        if (jax := sys.modules.get("jax")) is not None:  # which has read the environment already
            jax.config.update("jax_platforms", "cpu")
    print(f"process 0 of {found.count} does the job {name!r} alone{on}", flush=True)
    os.environ |= {ADDRESS: found.address, COUNT: "1", INDEX: "0"}
    return True
