"""Our TPU kernels against JAX's splash attention: estimated work over real rows, and temporary memory."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from cptjax.benchmarks.ahead_of_time import Compiles, digest_of
from cptjax.benchmarks.attention.documents import Areas, Rows, areas
from cptjax.benchmarks.attention.parts import from_json
from cptjax.benchmarks.attention.work import cycles, plan_executes, splash_executes
from cptjax.kernels.attention import plan_attention
from cptjax.kernels.attention.block_sizes import BlockSizes, block_sizes_for
from cptjax.kernels.attention.plan import Plan

PROGRAMS = "cptjax.benchmarks.attention.programs"
HEADS, HEAD_DIM = 8, 128  # of queries and of keys, where work is estimated
PASSES = ("forward", "backward")
# The least at which an array of length x length shows: shorter ones the compiler may keep on the chip.
SQUARE_LENGTH = 8192
OURS, SPLASH = "pallas_tpu", "splash"
_SPLASH_LENGTH = 4096  # that splash is compiled for: its kernels' code knows blocks, and not how many there are


@dataclasses.dataclass(frozen=True)
class Case:
    """Rows to attend over.

    Attributes:
        packed: whether they hold more than one document; splash is then given segment ids, and else spared them.
        allowed: of their areas, the most that our work may be of splash's.
    """

    name: str
    segment_ids: Rows
    packed: bool
    allowed: Callable[[Areas], float]


@dataclasses.dataclass(frozen=True)
class Work:
    """One case on one generation.

    Attributes:
        backward: whether it is the backward pass, else the forward.
        splash, ours: estimated cycles, the mean over rows of the case; None where the compiler refused.
        splash_blocks, our_blocks: the block sizes they are of.
        allowed: the most that ours may be of splash's.
        why: what a compiler said that refused.
    """

    generation: str
    case: str
    backward: bool
    splash: float | None
    ours: float | None
    splash_blocks: tuple[int, ...]
    our_blocks: tuple[int, ...]
    areas: Areas
    allowed: float
    why: str = ""

    @property
    def ratio(self) -> float | None:
        """Our work over splash's."""
        return self.ours / self.splash if self.ours and self.splash else None


@dataclasses.dataclass(frozen=True)
class Memory:
    """Temporary bytes of one program by ours and by splash, or what the compiler said."""

    generation: str
    length: int
    head_dim: int
    backward: bool
    ours: int | str
    splash: int | str


def splash_settings(generations: Sequence[str], blocks: Sequence[Sequence[int]]) -> Iterator[tuple[str, dict]]:
    """The programs of splash's search."""
    for generation in generations:
        for packed in (False, True):
            for backward in (False, True):
                for each in blocks:
                    yield "splash", _splash(generation, packed, backward, each)


def our_settings(generations: Sequence[str], cases: Sequence[Case]) -> Iterator[tuple[str, dict]]:
    """Our programs whose work is estimated."""
    for generation in generations:
        for length in dict.fromkeys(case.segment_ids.shape[1] for case in cases):
            yield "attention", attention_settings(generation, length, HEAD_DIM, OURS, True)


def memory_settings(
    generations: Sequence[str], lengths: Sequence[int], head_dims: Sequence[int]
) -> Iterator[tuple[str, dict]]:
    """The programs whose memory is compared, each pair of ours and splash's one after the other."""
    for generation in generations:
        for length in lengths:
            for head_dim in head_dims:
                for backward in (False, True):
                    for implementation in (OURS, SPLASH):
                        shape = (generation, length, head_dim, implementation, backward)
                        yield "attention", attention_settings(*shape)


def square_settings(generations: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Our programs in which no array of length x length may stand."""
    for generation in generations:
        yield "attention", attention_settings(generation, SQUARE_LENGTH, HEAD_DIM, OURS, True)


def attention_settings(
    generation: str, length: int, head_dim: int, implementation: str, backward: bool
) -> dict[str, Any]:
    """Of `programs.attention`."""
    shape = {"length": length, "heads": HEADS, "head_dim": head_dim}
    return {"generation": generation, **shape, "implementation": implementation, "backward": backward}


def estimate(
    compiles: Compiles, generations: Sequence[str], cases: Sequence[Case], splash_blocks: Sequence[Sequence[int]]
) -> list[Work]:
    """The work of each case on each generation, forward and backward."""
    found = []
    measured = [areas(case.segment_ids) for case in cases]
    for generation in generations:
        sizes = block_sizes_for(generation, HEAD_DIM, jnp.dtype(jnp.bfloat16).itemsize)
        for case, area in zip(cases, measured, strict=True):
            length = case.segment_ids.shape[1]
            settings = attention_settings(generation, length, HEAD_DIM, OURS, True)
            ours = compiled(compiles, "attention", settings)
            plan = plan_of(case.segment_ids, HEAD_DIM, sizes)
            for backward in (False, True):
                splash, blocks = _best_splash(compiles, generation, case, backward, splash_blocks)
                known = PASSES[backward] in ours
                work = our_cycles(ours, plan, backward) / len(case.segment_ids) if known else None
                shown = (splash, work, blocks, _blocks(plan.sizes, backward), area, case.allowed(area))
                found.append(Work(generation, case.name, backward, *shown, "" if work else complaint(ours)))
    return found


def compare_memory(
    compiles: Compiles, generations: Sequence[str], lengths: Sequence[int], head_dims: Sequence[int]
) -> list[Memory]:
    """Temporary memory of ours and of splash through the same call, for every pair of `memory_settings`."""
    both = [settings for _, settings in memory_settings(generations, lengths, head_dims)]
    found = []
    for ours, splash in zip(both[::2], both[1::2], strict=True):
        pair = [compiled(compiles, "attention", settings) for settings in (ours, splash)]
        shape = (ours["generation"], ours["length"], ours["head_dim"], ours["backward"])
        found.append(Memory(*shape, *(each.get("temporary_bytes", complaint(each)) for each in pair)))
    return found


def squares(compiles: Compiles, generations: Sequence[str]) -> dict[str, bool | str]:
    """By generation whether an array of length x length stands in our program for rows of 8192, or why there is no program."""
    found = {}
    for name, settings in square_settings(generations):
        each = compiled(compiles, name, settings)
        found[settings["generation"]] = each.get("square", complaint(each))
    return found


def compiled(compiles: Compiles, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What the function `name` of `programs` finds. Splash is little of our kernels' code, and alone none of it."""
    read = (
        "cptjax.benchmarks.bundles",
        "cptjax.benchmarks.ahead_of_time",
        "cptjax.benchmarks.attention.parts",
        PROGRAMS,
    )
    if name == "splash":
        ours = ()
    elif settings["implementation"] == SPLASH:
        ours = tuple(f"cptjax.kernels.attention.{each}" for each in ("splash", "intervals"))
    else:
        ours = ("cptjax.kernels.attention", "cptjax.kernels.device")
    source = digest_of(*read, *ours)
    return compiles.found(f"{PROGRAMS}:{name}", settings, source)


def plan_of(segment_ids: Rows, head_dim: int, sizes: BlockSizes) -> Plan:
    """Our kernels' plan of these rows, computed here."""
    how = {"head_dim": head_dim, "dtype": jnp.bfloat16, "implementation": OURS}
    return plan_attention(jnp.asarray(segment_ids), block_sizes=sizes, **how)


def our_cycles(found: dict[str, Any], plan: Plan, backward: bool) -> int:
    """Estimated cycles of one of our kernels, as `programs.attention` found it, for the rows of a plan.

    Backward it goes through a grid for each part of keys that rows fall into.
    """
    parts = from_json(found[PASSES[backward]])
    grids = plan.backward if backward else (plan.forward,)
    return sum(cycles(parts, plan_executes(steps, HEADS)) for steps in grids)


def complaint(found: dict[str, Any]) -> str:
    """The first line of what was said against a program; nothing if nothing was."""
    said = found.get("refused") or found.get("failed") or ""
    return " ".join(said.split())[:160]


def _blocks(sizes: BlockSizes, backward: bool) -> tuple[int, int, int]:
    """Of queries, of keys, and keys that lie in VMEM at a time."""
    if backward:
        return sizes.backward_queries, sizes.backward_keys, sizes.backward_resident_keys
    return sizes.queries, sizes.keys, sizes.resident_keys


def _splash(generation: str, packed: bool, backward: bool, blocks: Sequence[int]) -> dict[str, Any]:
    shape = {"length": _SPLASH_LENGTH, "heads": HEADS, "head_dim": HEAD_DIM}
    return {"generation": generation, **shape, "packed": packed, "backward": backward, "blocks": list(blocks)}


def _best_splash(
    compiles: Compiles, generation: str, case: Case, backward: bool, blocks: Sequence[Sequence[int]]
) -> tuple[int | None, tuple[int, ...]]:
    """Splash's least work for a row of a case, and its block sizes. All rows are alike to it."""
    length = case.segment_ids.shape[1]
    best: dict[int, tuple[int, ...]] = {}
    for each in blocks:
        found = compiled(compiles, "splash", _splash(generation, case.packed, backward, each))
        if "blocks" in found and not any(np.remainder(length, each[:2])):
            executed = splash_executes(length, HEADS, *each[:2], backward=backward)
            best.setdefault(cycles(from_json(found), executed), tuple(each))
    least = min(best, default=None)
    return least, best.get(least, ())
