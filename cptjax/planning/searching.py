"""The best few candidates compiled, several at a time, and compared by what the compiler made of them."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from cptjax.counts import in_bytes
from cptjax.errors import CptjaxError
from cptjax.files import read_json
from cptjax.planning.candidates import Candidate
from cptjax.planning.chips import GIB
from cptjax.planning.warnings import FULL
from cptjax.processes import child_environment

_LINES = 3  # of a refusal that are shown


def compile_candidates(
    found: Sequence[Candidate],
    command: Sequence[str],
    environment: Mapping[str, str],
    processes: int,
    folder: epath.Path,
    say: Callable[[str], None],
    hlo: str | None = None,
    first: int = 0,
) -> list[tuple[Candidate, dict[str, Any]]]:
    """(candidate, its plan.json) of those that compile.

    Args:
        command: of `python -m cptjax.main`, which a candidate's flags are added to.
        processes: how many compile at a time.
        folder: where the plan of each goes, by its number.
        hlo: the name of a file there for its program's text.
        first: the number of the first.
    """

    def compiled(numbered: tuple[int, Candidate]) -> tuple[Candidate, dict[str, Any]] | None:
        number, candidate = numbered
        output = folder / f"{number:02}"
        arguments = [*command, *candidate.flags, f"--gin.plan.plan.output_dir='{output}'"]
        arguments.append(f"--gin.plan.plan.hlo='{output / hlo}'" if hlo else "--gin.plan.plan.hlo=None")
        done = subprocess.run(
            [sys.executable, "-m", "cptjax.main", *arguments],
            env=child_environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            say(f"{describe_candidate(candidate)}: " + " ".join(done.stderr.splitlines()[:_LINES]))
            return None
        plan = read_json(output / "plan.json")
        say(f"{describe_candidate(candidate)}: {describe_found(plan)}")
        return candidate, plan

    with ThreadPoolExecutor(processes) as pool:
        return [each for each in pool.map(compiled, enumerate(found, first)) if each is not None]


def ranked(results: Sequence[tuple[Candidate, dict[str, Any]]]) -> list[tuple[Candidate, dict[str, Any]]]:
    """Those that leave a tenth of the memory free, the best first.

    Best: the fewest bytes sent with no work beside them in a step, then the least memory; never the compiler's own times.

    Raises:
        CptjaxError: there is none, or none of them does.
    """
    if not results:
        raise CptjaxError("none of the candidates compiles; what was said of each stands above.")
    roomy = [each for each in results if _leaves_room(each[1]["hbm_bytes"])]
    if not roomy:
        raise CptjaxError(
            "none of the candidates that compile leaves a tenth of the memory free; what each takes stands above.\n"
            "  A larger TOPOLOGY, a smaller BATCH_TOKENS, or a higher SEARCH, which compiles more of them."
        )
    return sorted(roomy, key=lambda each: (each[1]["sent_bytes"]["exposed"], each[1]["hbm_bytes"]["total"]))


def _leaves_room(memory: Mapping[str, Any]) -> bool:
    """Whether so much is free; of devices whose memory is not known, yes."""
    return memory["capacity"] is None or memory["total"] <= FULL * memory["capacity"]


def describe_candidate(candidate: Candidate) -> str:
    """Its settings in a few words."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in candidate.mesh.items() if size > 1) or "one device"
    flags = "".join(f", {name}={value}" for name, value in candidate.compiler_flags.items())
    return f"{mesh}, remat {candidate.remat}, {candidate.accumulation} slice(s){flags}"


def describe_found(plan: Mapping[str, Any]) -> str:
    """What was made of it."""
    memory = plan["hbm_bytes"]
    sent, warnings = in_bytes(plan["sent_bytes"]["exposed"]), len(plan["warnings"])
    return f"{sent} with no work beside it, {memory['total'] / GIB:.2f} GiB, {warnings} warnings"


def winner_gin(candidate: Candidate, plan: Mapping[str, Any], command: str) -> str:
    """A gin file that goes after the recipe."""
    sizes = {axis: size for axis, size in candidate.mesh.items() if size > 1} or {"fsdp": 1}
    said = "".join(f"# warning: {warning}\n" for warning in plan["warnings"])
    topology = f'TOPOLOGY = "{plan["topology"]}"\nSLICES = {plan["slices"]}\n'
    return (
        f"# Found by a search for {plan['topology']}: {describe_found(plan)}.\n"
        f"#   {command}\n# It goes after the recipe: --gin_file=<recipe> --gin_file=<this file>.\n# Required: the recipe.\n{said}"
        f"{topology}MESH = {json.dumps(sizes)}\n"
        f'REMAT = "{candidate.remat}"\nACCUMULATION = {candidate.accumulation}\n'
        f"COMPILER_FLAGS = {plan['compiler_flags']!r}\n"
    )
