"""The plans that the recipes ship with, each compiled anew, as one table."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cptjax.configuration import permissions
from cptjax.counts import in_bytes
from cptjax.errors import CptjaxError
from cptjax.planning.chips import GIB
from cptjax.planning.topology import check_libtpu
from cptjax.processes import run_command


def plans(named: Mapping[str, Sequence[str]], folder: str | None = None) -> dict[str, Any]:
    """Plans each recipe, one after the other, and prints a line for each.

    Args:
        named: what a line is called -> its gin file, then macros as a command gives them (`SLICES=2`).
        folder: where each plan's plan.json and page go; None: they are thrown away.

    Returns:
        Of each: chips, GiB of a device's memory and its share of what there is, what a device sends in a step, seconds of a step
        (None where there is no estimate) and of compiling.

    Raises:
        CptjaxError: one of them is refused; the others before it have been printed.
    """
    check_libtpu("this benchmark")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="cptjax-plans-") as temporary:
        for number, (name, (recipe, *macros)) in enumerate(named.items()):
            output = Path(folder).expanduser() / f"{number:02}" if folder else Path(temporary) / f"{number:02}"
            given = [f"--gin.{macro}" for macro in macros]
            files = [f"--gin_file={recipe}", "--gin_file=gin/jobs/plan.gin"]
            code, _ = run_command([*files, *given, f"--gin.OUTPUT_DIR='{output}'", *permissions()])
            if code:
                raise CptjaxError(f"{name}: the plan ended with exit code {code}; it says why above.")
            found[name] = summary(json.loads((output / "plan.json").read_text(encoding="utf-8")))
    print("\n".join(table(found)))
    return found


def summary(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the table says of a plan.json."""
    memory = plan["hbm_bytes"]
    return {
        "chips": plan["chips"],
        "mesh": {axis: size for axis, size in plan["mesh"].items() if size > 1},
        "gib": memory["total"] / GIB,
        "of_capacity": memory["total"] / memory["capacity"],
        "sent": plan["sent_bytes"],
        "step_seconds": plan["step_seconds"],
        "kernels": sum(plan["kernels"].values()),
        "warnings": plan["warnings"],
        "compile_seconds": plan["compile_seconds"],
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """As Markdown, for docs/benchmarks.md."""
    lines = [
        "| plan | chips | mesh | GiB of a device | sent in a step | of it in layers | with no work beside it: in layers, in all | "
        "seconds a step | warnings | compiled in |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, each in found.items():
        mesh = " x ".join(f"{axis} {size}" for axis, size in each["mesh"].items())
        sent, seconds = {kind: in_bytes(size) for kind, size in each["sent"].items()}, each["step_seconds"]
        cells = [
            name,
            each["chips"],
            mesh,
            f"{each['gib']:.2f} ({each['of_capacity']:.0%}{': does not fit' if each['of_capacity'] > 1 else ''})",
            sent["all"],
            sent["in_layers"],
            f"{sent['exposed_in_layers']}, {sent['exposed']}",
            f"{seconds['low']:.3g} to {seconds['high']:.3g}" if seconds else "no estimate",
            len(each["warnings"]),
            f"{each['compile_seconds']:.0f} s",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines
