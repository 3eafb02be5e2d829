"""The committed table of block sizes made anew: every candidate compiled, the one with the least estimated work taken."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp

from cptjax.benchmarks.ahead_of_time import Compiles
from cptjax.benchmarks.attention.compare import (
    OURS,
    Case,
    attention_settings,
    compiled,
    complaint,
    our_cycles,
    plan_of,
)
from cptjax.kernels.attention.block_sizes import BlockSizes, block_sizes_for

_LENGTH = 8192  # that candidates are compiled for: the kernels' code knows blocks, and hardly how many there are


def settings(
    generations: Sequence[str], head_dims: Sequence[int], candidates: Sequence[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The programs to compile: the gradients, which hold both kernels, with the same blocks in both."""
    for generation, head_dim, blocks in itertools.product(generations, head_dims, _pairs(candidates)):
        yield "attention", _settings(generation, head_dim, blocks)


def table(
    compiles: Compiles,
    generations: Sequence[str],
    head_dims: Sequence[int],
    candidates: Sequence[int],
    cases: Sequence[Case],
) -> list[str]:
    """Lines for `TABLE` of `cptjax/kernels/attention/block_sizes.py`, and under them what they were chosen from.

    The choice is the least of the geometric mean, over `cases`, of estimated cycles.
    """
    lines, seen = [], []
    for generation, head_dim in itertools.product(generations, head_dims):
        best: dict[bool, tuple[float, tuple[int, int]]] = {}
        for blocks in _pairs(candidates):
            given = _settings(generation, head_dim, blocks)
            found = compiled(compiles, "attention", given)
            if "forward" not in found:
                seen.append(f"# {generation}, {head_dim}, {blocks}: {complaint(found)}")
                continue
            sizes = BlockSizes(**given["block_sizes"])
            plans = [plan_of(case.segment_ids, head_dim, sizes) for case in cases]
            means = []
            for backward in (False, True):
                logs = [math.log(our_cycles(found, plan, backward)) for plan in plans]
                means.append(math.exp(sum(logs) / len(logs)))
                best[backward] = min(best.get(backward, (math.inf, blocks)), (means[-1], blocks))
            shown = ", ".join(f"{mean / 1e3:,.0f}" for mean in means)
            seen.append(f"# {generation}, {head_dim}, {blocks}: {shown} thousand cycles forward, backward")
        if best:
            chosen = (*best[False][1], *best[True][1])
            lines.append(f'    ("{generation}", {head_dim}): {chosen},')
        else:
            lines.append(f'    # ("{generation}", {head_dim}): the compiler refuses every candidate')
    return [*lines, "", *seen]


def _pairs(candidates: Sequence[int]) -> list[tuple[int, int]]:
    """(queries, keys) of a block."""
    return list(itertools.product(candidates, candidates))


def _settings(generation: str, head_dim: int, blocks: tuple[int, int]) -> dict[str, Any]:
    queries, keys = blocks
    held = block_sizes_for(generation, head_dim, jnp.dtype(jnp.bfloat16).itemsize)
    sizes = {
        "queries": queries,
        "keys": keys,
        "resident_keys": max(keys, held.resident_keys // keys * keys),
        "backward_queries": queries,
        "backward_keys": keys,
        "backward_resident_keys": max(keys, held.backward_resident_keys // keys * keys),
    }
    return {**attention_settings(generation, _LENGTH, head_dim, OURS, True), "block_sizes": sizes}
