"""Estimated work of a TPU attention kernel: bundles of its parts, weighed by how often a batch's blocks execute them.

A figure for ranking programs on one chip, and never a time: see `cptjax.benchmarks.bundles`.
"""

import dataclasses

import numpy as np

from cptjax.benchmarks.attention.parts import Parts
from cptjax.kernels.attention.plan import Steps, Work


@dataclasses.dataclass(frozen=True)
class Executed:
    """How often the parts of a kernel are executed for a batch; see `Parts`."""

    steps: int
    begins: int
    ends: int
    blocks: tuple[int, ...]


def cycles(of: Parts, executed: Executed) -> int:
    """Bundles that are executed: the estimated work.

    Raises:
        ValueError: the two count other places of blocks.
    """
    each = zip(of.blocks, executed.blocks, strict=True)
    ends = executed.begins * of.begin + executed.ends * of.end
    return sum(bundles * times for bundles, times in each) + executed.steps * of.step + ends


def plan_executes(steps: Steps, heads: int) -> Executed:
    """What one of our kernels executes in a grid of `steps`, which a plan of real documents gave, for each of `heads`.

    Its three loops go over blocks of keys that need a mask, that need none, and that need one again.
    """
    count = int(steps.count[0])
    begin, clear, cloudy, end, first, last = Work.of(np.asarray(steps.work)[:count].astype(np.int64))
    trips = (heads * int(np.sum(stop - start)) for start, stop in ((begin, clear), (clear, cloudy), (cloudy, end)))
    return Executed(heads * count, heads * int(first.sum()), heads * int(last.sum()), tuple(trips))


def splash_executes(length: int, heads: int, queries: int, keys: int, backward: bool = False) -> Executed:
    """What splash attention executes for a causal row, whatever its documents: its grid has all blocks, late ones are skipped.

    Args:
        queries, keys: of a block.
        backward: its fused backward kernel, whose sums are of blocks of keys and not of queries.
    """
    across, down = length // queries, length // keys
    visited = sum(min(down, -(-(block + 1) * queries // keys)) for block in range(across))
    sums = down if backward else across
    return Executed(heads * across * down, heads * sums, heads * sums, (heads * visited,))
