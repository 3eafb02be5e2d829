"""A run's very step compiled for TPUs that need not be here: does it fit, what does it send, how long and how dear is it?"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from etils import epath

from cptjax.configuration import permissions, resolved_config
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import write_file
from cptjax.kernels.device import GENERATIONS
from cptjax.planning.chips import CHIPS
from cptjax.planning.compiling import compile_step
from cptjax.planning.described import Plan, describe
from cptjax.planning.estimate import estimate_step
from cptjax.planning.planned_run import planned_run
from cptjax.planning.searching import Searching, check_flag_sets, search_all
from cptjax.planning.topology import LIBTPU_ENVIRONMENT, Topology, check_libtpu, devices_of, find_topology
from cptjax.processes import run_command
from cptjax.reporting.folder import CONFIG, RUN
from cptjax.training.outline import Outline
from cptjax.training.run import Flags, Run

PLAN, PAGE = "plan.json", "report.html"
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
    flag_sets: Mapping[str, Sequence[Flags | Sequence[Flags]]] | None = None,
    search_topologies: Sequence[str] = (),
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
            paper, of those that fit. The best goes to `search.gin` in `output_dir`; of several topologies, that of each to its
            own folder there.
        processes: how many of them compile at a time; each takes 1 to 2 GiB of this machine's memory.
        flag_sets: of a generation, sets of compiler flags, with each of which a search compiles its best mesh again.
        search_topologies: searched for one after another, in place of the run's own; a table compares what was found.
        here: compile in this process; set in the child that knows libtpu.

    Raises:
        ConfigurationError: the run cannot be on this topology, or libtpu is not installed or refuses a flag.
        CptjaxError: libtpu refuses the step, for the devices' memory or another reason. Not every step that does not fit is
            refused: the others' warnings begin with it.
    """
    _refuse_a_run(output_dir)
    if search_topologies and not search:
        raise ConfigurationError(
            "SEARCH_TOPOLOGIES are searched for: SEARCH says how many candidates of each to compile."
        )
    if search:
        names = search_topologies or ([run.topology] if run.topology else [])
        if not names or output_dir is None:
            raise ConfigurationError("SEARCH needs a TOPOLOGY to search for, and an OUTPUT_DIR for what it finds.")
        if len(set(names)) != len(names):
            raise ConfigurationError(f"SEARCH_TOPOLOGIES = {list(names)} names one twice.")
        targets = [
            find_topology(name, run.slices, "SEARCH_TOPOLOGIES" if search_topologies else "TOPOLOGY") for name in names
        ]
        check_flag_sets(flag_sets or {})
        how = Searching(
            whole_number(search, "SEARCH", minimum=1),
            whole_number(processes, "PROCESSES", minimum=1),
            flag_sets or {},
            None if hlo is None else epath.Path(hlo).name,
        )
        check_libtpu("the job `plan`")
        return search_all(run, checkpoint, targets, how, epath.Path(output_dir).expanduser(), dry_run)
    target = None if run.topology is None else find_topology(run.topology, run.slices)
    if target is not None and not here:
        check_libtpu("the job `plan`")
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
