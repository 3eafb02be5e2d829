"""What an attention kernel's code is made of: its blocks, what begins and ends their sums, and the rest of a grid step."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from cptjax.benchmarks.bundles import LOOP, Region
from cptjax.errors import CptjaxError

# A skipped part of fewer bundles is taken for executed in each step, as are parts of the grid's own (copies).
_SMALL = 40


@dataclasses.dataclass(frozen=True)
class Parts:
    """Bundles of a kernel's parts.

    Attributes:
        step: of a grid step beside what follows.
        begin, end: under a condition before and after the blocks: what is done at a sum's first and last step.
        blocks: of a block's products and what is computed between them, one number for each place in the code that does it.
    """

    step: int
    begin: int
    end: int
    blocks: tuple[int, ...]


def parts(kernel: Region) -> Parts:
    """The parts of a kernel whose grid is one loop, with blocks of products in loops or conditions inside.

    Raises:
        CptjaxError: it is made in another way; the message has its outline.
    """
    grids = [region for region in _outermost_loops(kernel) if region.products]
    blocks = [region for region in kernel.walk() if region.own_products]
    nested = any(inner.products > inner.own_products for inner in blocks)
    if len(grids) != 1 or not blocks or nested or grids[0] in blocks:
        raise CptjaxError(f"this kernel's parts are not understood:\n{kernel.outline()}")
    beside = _around(grids[0], blocks).inside
    found = {"step": 0, "begin": 0, "end": 0}
    passed = 0  # blocks before this place
    around = [grids[0]]
    while around:
        region = around.pop()
        if region in blocks:
            passed += 1
        elif region.products:
            if region is not grids[0] and region.kind == LOOP:
                raise CptjaxError(f"this kernel has a loop around its blocks that is not its grid:\n{kernel.outline()}")
            found["step"] += region.own
            around += reversed(region.inside)
        elif region.bundles < _SMALL or region not in beside or 0 < passed < len(blocks):
            found["step"] += region.bundles
        else:
            found["begin" if passed == 0 else "end"] += region.bundles
    return Parts(**found, blocks=tuple(block.bundles for block in blocks))


def to_json(of: Parts) -> dict[str, Any]:
    """As `ahead_of_time.Compiles` keeps it."""
    return dataclasses.asdict(of)


def from_json(stored: dict[str, Any]) -> Parts:
    """The reverse of `to_json`, whose tuple comes back from a file as a list."""
    return Parts(**{**stored, "blocks": tuple(stored["blocks"])})


def _around(region: Region, blocks: Sequence[Region]) -> Region:
    """The innermost region that holds all `blocks`, directly or not, and is none of them."""
    for inner in region.inside:
        if inner.products == region.products and inner not in blocks:
            return _around(inner, blocks)
    return region


def _outermost_loops(region: Region) -> list[Region]:
    if region.kind == LOOP:
        return [region]
    return [loop for inner in region.inside for loop in _outermost_loops(inner)]
