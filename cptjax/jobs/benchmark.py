"""A measurement of speed, printed with the machine and the versions it was taken on, and kept as JSON lines."""

import json
import os
import platform
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from cptjax.reporting.folder import git_state, versions


def benchmark(measure: Callable[[], dict[str, Any]], output: str | None = None, dry_run: bool = False) -> None:
    """Runs `measure` and prints what it found; one JSON line more in `output`, if that is given.

    Absolute times say something about one machine at one moment; its ratios were taken in one run.
    """
    machine = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "python": platform.python_version(),
    }
    for name, value in machine.items():
        print(f"{name:28} {value}")
    if dry_run:
        return
    found = measure()
    for name, value in found.items():
        print(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")
    if output is not None:
        path = epath.Path(output).expanduser()
        line = json.dumps({"found": found, "machine": machine, "versions": versions(), "git": git_state()})
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{before}{line}\n", encoding="utf-8")
        print(f"wrote {path}")


def _processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next(line.partition(":")[2].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
