"""A run's very step compiled for TPUs that need not be here: does it fit, what does it send, how long and how dear is it?"""

import dataclasses
import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath

from cptjax.configuration import command_line, permissions, resolved_config
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import write_file
from cptjax.kernels.device import GENERATIONS
from cptjax.planning.candidates import Candidate, candidates
from cptjax.planning.chips import CHIPS, GIB
from cptjax.planning.compiling import compile_step
from cptjax.planning.described import Plan, describe
from cptjax.planning.estimate import estimate_step
from cptjax.planning.planned_run import planned_config, planned_run, state_bytes
from cptjax.planning.searching import compile_candidates, describe_candidate, ranked, winner_gin
from cptjax.planning.topology import LIBTPU_ENVIRONMENT, Topology, check_libtpu, devices_of, find_topology
from cptjax.processes import run_command
from cptjax.reporting.folder import CONFIG, RUN
from cptjax.training.outline import Outline
from cptjax.training.run import Run

PLAN, PAGE, WINNER = "plan.json", "report.html", "search.gin"
_TELL_SECONDS = 20.0


def plan(
    run: Run,
    checkpoint: str | None = None,
    prices: Mapping[str, float | None] | None = None,
    prices_as_of: str = "",
    output_dir: str | None = None,
    hlo: str | None = None,
    search: float = 0,
    processes: float = 2,
    flag_sets: Mapping[str, Sequence[Mapping[str, str | bool | int]]] | None = None,
    here: bool = False,
    dry_run: bool = False,
) -> int | None:
    """Compiles the step that `run` would train by, for its topology (None: the devices that are here), and says what it would be.

    Neither weights nor text need be there. Prints a table; writes plan.json and report.html where `output_dir` is given.

    Args:
        checkpoint: a folder with a config.json: the model that is planned; None: what the run says.
        prices: dollars for a chip and an hour by generation; prices_as_of: of when.
        hlo: a file for the compiled program's text (tests/planning/collectives_of.py counts its collectives);
            of a search one of this name for each candidate, in its own folder.
        search: instead of the run's own mesh, remat and accumulation, how many others to compile: those that are the quickest on
            paper, of those that fit. The best goes to `search.gin` in `output_dir`.
        processes: how many of them compile at a time; each takes 1 to 2 GiB of this machine's memory.
        flag_sets: of a generation, sets of compiler flags, with each of which a search compiles its best mesh again.
        here: compile in this process; set in the child that knows libtpu.

    Raises:
        ConfigurationError: the run cannot be on this topology, or libtpu is not installed or refuses a flag.
        CptjaxError: libtpu refuses the step, for the devices' memory or another reason. Not every step that does not fit is
            refused: the others' warnings begin with it.
    """
    target = None if run.topology is None else find_topology(run.topology, run.slices)
    _refuse_a_run(output_dir)
    if search and (target is None or output_dir is None):
        raise ConfigurationError("SEARCH needs a TOPOLOGY to search for, and an OUTPUT_DIR for what it finds.")
    if target is not None and not here:
        check_libtpu("the job `plan`")
        if search:
            sets = (flag_sets or {}).get(target.generation, ())
            return _search(run, checkpoint, target, output_dir, search, processes, sets, hlo, dry_run)
        return _in_child(dry_run)
    devices = jax.devices() if target is None else devices_of(target)
    outline = planned_run(run, checkpoint, devices)
    _say_before(outline, target)
    if dry_run:
        return None
    with _Waiting():
        program, text = compile_step(outline)
    if program.refused:
        _refuse(program.refused, run.compiler_flags or {}, target)
    generation = target.generation if target else GENERATIONS.get(program.kind)
    chip = CHIPS.get(generation or "")
    price = (prices or {}).get(generation or "")
    made = Plan(
        outline,
        program,
        target,
        chip,
        estimate_step(outline, program, chip, target.slices if target else 1) if chip else None,
        None if price is None else (price, prices_as_of),
    )
    print("\n".join(describe(made)), flush=True)
    if output_dir is not None:
        _write(made, epath.Path(output_dir).expanduser())
    if hlo is not None:  # after the folder, which it may be in
        write_file(epath.Path(hlo).expanduser(), text)
        print(f"wrote {hlo}")
    return None


def _in_child(dry_run: bool) -> int:
    """The same job in a process that has libtpu's environment; its exit code."""
    with tempfile.TemporaryDirectory(prefix="cptjax-plan-") as folder:
        config = Path(folder) / CONFIG
        config.write_text(resolved_config(), encoding="utf-8")
        command = [f"--gin_file={config}", "--gin.plan.plan.here=True", *permissions()]
        code, _ = run_command([*command, *(["--dry_run"] if dry_run else [])], LIBTPU_ENVIRONMENT)
    return code if code >= 0 else CptjaxError.exit_code


def _search(
    run: Run,
    checkpoint: str | None,
    target: Topology,
    output_dir: str,
    search: float,
    processes: float,
    flag_sets: Sequence[Mapping[str, str | bool | int]],
    hlo: str | None,
    dry_run: bool,
) -> None:
    """Compiles the best candidates on paper, then the best of these with other compiler flags, and writes the winner."""
    length = whole_number(run.sequence_length, "SEQUENCE_LENGTH", minimum=1)
    rows = whole_number(run.batch_tokens, "BATCH_TOKENS", minimum=1) // length
    config, own = planned_config(run, checkpoint), dict(run.compiler_flags or {})
    on_paper = candidates(config, target, rows, length, state_bytes(run, config))
    if not on_paper:
        raise ConfigurationError(
            f"no mesh fits: {rows:,} rows of {length:,} tokens on {target}, with room for the weights.\n"
            "  A batch with more factors of 2, a larger topology, or tensor and context axes by hand."
        )
    best = [
        dataclasses.replace(each, compiler_flags=own) for each in on_paper[: whole_number(search, "SEARCH", minimum=1)]
    ]
    print(f"{len(on_paper):,} meshes fit {target} on paper; compiling {len(best)}:")
    for each in best:
        print(f"  {describe_candidate(each)}: {each.seconds:.3g} s and {each.hbm / GIB:.1f} GiB on paper", flush=True)
    if flag_sets:
        print(f"and then the best of them with each of {len(flag_sets)} sets of compiler flags")
    if dry_run:
        return
    folder = epath.Path(output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "search_config.gin"
    write_file(config, resolved_config())
    command = [f"--gin_file={config}", "--gin.plan.plan.here=True", "--gin.plan.plan.search=0", *permissions()]

    def compiled(several: Sequence[Candidate], first: int) -> list[tuple[Candidate, dict[str, Any]]]:
        return compile_candidates(
            several,
            command,
            LIBTPU_ENVIRONMENT,
            whole_number(processes, "PROCESSES", minimum=1),
            folder / "candidates",
            lambda line: print(line, flush=True),
            None if hlo is None else epath.Path(hlo).name,
            first,
        )

    results = compiled(best, 0)
    winner, _ = ranked(results)[0]
    flagged = [dataclasses.replace(winner, compiler_flags=own | dict(each)) for each in flag_sets]
    winner, found = ranked([*results, *compiled(flagged, len(best))])[0]
    write_file(folder / WINNER, winner_gin(winner, found, command_line()))
    print(f"the best: {describe_candidate(winner)}\nwrote {folder / WINNER}")


def _refuse_a_run(output_dir: str | None) -> None:
    if output_dir is not None and any((epath.Path(output_dir).expanduser() / each).exists() for each in (CONFIG, RUN)):
        raise ConfigurationError(
            f"OUTPUT_DIR = '{output_dir}' is the folder of a run, whose page a plan's would replace.\n  Name another folder."
        )


def _say_before(outline: Outline, target: Topology | None) -> None:
    where = "the devices here" if target is None else f"{target}: {target.chips:,} chips, {target.devices:,} devices"
    print(
        f"planning a step of {outline.batch_tokens:,} tokens for {where}; a model of billions takes minutes to compile",
        flush=True,
    )


class _Waiting:
    """Says now and then that the compiler is still at work."""

    def __enter__(self) -> None:
        self._done, began = threading.Event(), time.monotonic()

        def tell() -> None:
            while not self._done.wait(_TELL_SECONDS):
                print(f"compiling: {time.monotonic() - began:.0f} s", flush=True)

        threading.Thread(target=tell, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._done.set()


def _refuse(message: str, flags: Mapping[str, str | bool | int], target: Topology | None) -> None:
    if "RESOURCE_EXHAUSTED" in message:
        raise CptjaxError(
            f"the step does not fit in the memory of {target or 'these devices'}.\n  {message}\n"
            "  More of MESH's fsdp or tensor, REMAT = 'full', a higher ACCUMULATION, or a smaller BATCH_TOKENS make it smaller."
        )
    named = [name for name in flags if name in message]
    if named or flags and "option" in message.lower():
        raise ConfigurationError(
            f"COMPILER_FLAGS: libtpu refuses {named[0] if named else 'one of them'}.\n  {message.splitlines()[0]}"
        )
    raise CptjaxError(f"libtpu does not compile this step.\n  {message}")


def _write(made: Plan, folder: epath.Path) -> None:
    from cptjax.planning.plan_page import plan_page  # jinja2, only now

    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / PLAN, json.dumps(made.to_json(), indent=1) + "\n")
    write_file(folder / PAGE, plan_page(made, os.fspath(folder)))
    print(f"wrote {folder / PLAN} and {folder / PAGE}")
