"""The best few candidates compiled, several at a time, and compared by what the compiler made of them."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from cptjax.configuration import command_line, permissions, resolved_config
from cptjax.configuration.values import whole_number
from cptjax.counts import in_bytes
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import read_json, write_file
from cptjax.planning.candidates import Candidate, candidates
from cptjax.planning.chips import CHIPS, GIB
from cptjax.planning.planned_run import planned_config, state_bytes
from cptjax.planning.topology import LIBTPU_ENVIRONMENT, Topology
from cptjax.planning.warnings import FULL
from cptjax.processes import child_environment
from cptjax.training.run import Flags, Run, merged_flags

WINNER = "search.gin"
_LINES = 3  # of a refusal that are shown

Found = tuple[Candidate, dict[str, Any]]  # and the plan.json that was made of it


@dataclasses.dataclass(frozen=True)
class Searching:
    """How a search is done.

    Attributes:
        count: candidates that are compiled; processes: how many at a time.
        flag_sets: of a generation, sets of compiler flags, with each of which the best of them is compiled again.
        hlo: the name of a file in each candidate's folder for its program's text.
    """

    count: int
    processes: int
    flag_sets: Mapping[str, Sequence[Flags | Sequence[Flags]]]
    hlo: str | None = None


def search_all(
    run: Run, checkpoint: str | None, targets: Sequence[Topology], how: Searching, folder: epath.Path, dry_run: bool
) -> None:
    """Searches for each topology and writes the winner; of several, each one's in a folder of its own, and a table of them all.

    Of several, one that nothing fits or compiles for is told of and passed over.

    Raises:
        ConfigurationError: no mesh fits any of them.
        CptjaxError: of none anything compiles, or anything with room.
    """
    length = whole_number(run.sequence_length, "SEQUENCE_LENGTH", minimum=1)
    rows = whole_number(run.batch_tokens, "BATCH_TOKENS", minimum=1) // length
    model = planned_config(run, checkpoint)
    state, fitting = state_bytes(run, model), []
    for target in targets:
        on_paper = candidates(model, target, rows, length, state)
        fitting += [(target, on_paper)] if on_paper else []
        if not on_paper and len(targets) > 1:
            _say(f"{target}: no mesh fits")
    if not fitting:
        raise ConfigurationError(
            f"no mesh fits: {rows:,} rows of {length:,} tokens on {', '.join(map(str, targets))}, with room for the weights.\n"
            "  A batch with more factors of 2, a larger topology, or tensor and context axes by hand."
        )
    found = []
    for target, on_paper in fitting:
        into = folder / target.name.replace(":", "_") if len(targets) > 1 else folder
        try:
            one = _search(run, target, on_paper, how, into, dry_run)
        except CptjaxError as error:
            if len(targets) == 1:
                raise
            _say(f"{target}: {error}")
            continue
        found += [] if one is None else [one]
    if dry_run or len(targets) == 1:
        return
    if not found:
        raise CptjaxError("nothing was found for any of SEARCH_TOPOLOGIES; what was said of each stands above.")
    _say("\nthe best of each, the fewest bytes of a device with no work beside them first:")
    for candidate, plan in ranked(found):
        _say(f"  {_named(plan)}: {describe_candidate(candidate)}; {describe_found(plan)}; {_price(plan)}")


def _search(
    run: Run, target: Topology, on_paper: Sequence[Candidate], how: Searching, folder: epath.Path, dry_run: bool
) -> Found | None:
    """Compiles the best candidates on paper, then the best of these with other compiler flags, and writes the winner.

    The run's own flags are those of the generation that it names: candidates of another are compiled without.

    Raises:
        CptjaxError: nothing compiles, or nothing with room.
    """
    own = run.compiler_flags if (run.topology or "").partition(":")[0] == target.generation else {}
    best = [dataclasses.replace(each, compiler_flags=own) for each in on_paper[: how.count]]
    sets: list[Flags] = []
    for each in how.flag_sets.get(target.generation, ()):
        merged = merged_flags([own, merged_flags(each)])
        sets += [] if merged in (own, *sets) else [merged]
    print(f"{len(on_paper):,} meshes fit {target} on paper; compiling {len(best)}:")
    for each in best:
        print(f"  {describe_candidate(each)}: {each.seconds:.3g} s and {each.hbm / GIB:.1f} GiB on paper", flush=True)
    if sets:
        print(f"and then the best of them with each of {len(sets)} other sets of compiler flags", flush=True)
    if dry_run:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "search_config.gin", resolved_config())
    command = [f"--gin_file={folder / 'search_config.gin'}", f"--gin.run.Run.topology='{target.name}'", *permissions()]
    command += ["--gin.plan.plan.here=True", "--gin.plan.plan.search=0", "--gin.plan.plan.search_topologies=[]"]

    def compiled(several: Sequence[Candidate], first: int) -> list[Found]:
        into = folder / "candidates"
        return compile_candidates(several, command, LIBTPU_ENVIRONMENT, how.processes, into, _say, how.hlo, first)

    results = compiled(best, 0)
    winner, _ = ranked(results)[0]
    flagged = [dataclasses.replace(winner, compiler_flags=each) for each in sets]
    winner, found = ranked([*results, *compiled(flagged, len(best))])[0]
    write_file(folder / WINNER, winner_gin(winner, found, command_line()))
    _say(f"the best: {describe_candidate(winner)}\nwrote {folder / WINNER}")
    return winner, found


def check_flag_sets(flag_sets: Mapping[str, Sequence[Flags | Sequence[Flags]]]) -> None:
    """Refuses what names no generation, or is no list of sets.

    Raises:
        ConfigurationError: as said.
    """
    for generation, sets in flag_sets.items():
        if generation not in CHIPS:
            raise ConfigurationError(f"FLAG_SETS names the generation '{generation}'; there are {', '.join(CHIPS)}.")
        if not isinstance(sets, list | tuple):
            raise ConfigurationError(f"FLAG_SETS of {generation} = {sets!r}: it is a list of sets, [%SPARSE_CORES].")
        for each in sets:
            merged_flags(each, "FLAG_SETS")


def _say(line: str) -> None:
    print(line, flush=True)


def compile_candidates(
    found: Sequence[Candidate],
    command: Sequence[str],
    environment: Mapping[str, str],
    processes: int,
    folder: epath.Path,
    say: Callable[[str], None],
    hlo: str | None = None,
    first: int = 0,
) -> list[Found]:
    """(candidate, its plan.json) of those that compile.

    Args:
        command: of `python -m cptjax.main`, which a candidate's flags are added to.
        processes: how many compile at a time.
        folder: where the plan of each goes, by its number.
        hlo: the name of a file there for its program's text.
        first: the number of the first.
    """

    def compiled(numbered: tuple[int, Candidate]) -> Found | None:
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


def ranked(results: Sequence[Found]) -> list[Found]:
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
    flags = [f"{name}={value}" for name, value in candidate.compiler_flags.items()]
    named = ", ".join(flags[:1]) + (f" and {len(flags) - 1} more flags" if len(flags) > 1 else "")
    return f"{mesh}, remat {candidate.remat}, {candidate.accumulation} slice(s)" + (f", {named}" if flags else "")


def _named(plan: Mapping[str, Any]) -> str:
    slices = "" if plan["slices"] == 1 else f"{plan['slices']} slices of "
    return f"{slices}{plan['topology']}, {plan['chips']} chips"


def _price(plan: Mapping[str, Any]) -> str:
    """What all of the run would take by the plan's range of times, which nothing has measured."""
    both = [plan["chip_hours"], plan["dollars"]]
    texts = [f"{each['low']:,.0f} to {each['high']:,.0f}" if each else "an unknown number of" for each in both]
    return f"{texts[0]} chip-hours, {texts[1]} dollars"


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
