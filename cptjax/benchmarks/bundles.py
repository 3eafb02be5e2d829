"""How long a TPU kernel's code is, and where: read from the final LLO dump that its compiler writes.

A dump (`*-final_bundles.txt`) has one line for each VLIW bundle: its address, a label where control arrives, and its
instructions. A bundle is at least one cycle, so that bundles, weighed by how often they are executed, rank programs for
one chip. They are no times: neither waiting for memory nor stalls of the matrix units are in them.

What is executed together is found from the branches. One back to an earlier region makes a loop; one ahead makes a
stretch that may be skipped. They nest, and so do the `Region`s that are made of them.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from cptjax.errors import CptjaxError

KERNEL, LOOP, SKIPPED = "kernel", "loop", "skipped"
_BUNDLE = re.compile(r"^\s*(0x[0-9a-f]+|0)\s+(?:(?:LH|LB|LE|PB|PF|CT)\s*)*:\s*[>\s]*\{")
_BRANCH = re.compile(r"\bsbr\.\w+\b[^;}]*?target = \$region(\d+)")
_BEGINS = re.compile(r"Start(?:/End empty)? region (\d+)")
_PRODUCT = re.compile(r"\bvmatmul\b")
_ENDS = re.compile(r"End region (\d+)")
_EXIT = "/* exit bundle:"
_DELAY = 8  # bundles after a branch that are executed all the same are fewer than this
_FILE = re.compile(r"^\d+-(?P<name>.+)-\d+-final_bundles\.txt$")


@dataclasses.dataclass
class Region:
    """Bundles that are executed as often as each other, and within them those that are executed more or less often.

    Attributes:
        kind: of the whole, KERNEL; LOOP: again and again; SKIPPED: only where a condition holds.
        start, stop: addresses, in bundles from the kernel's first.
        own_products: matrix products in bundles of its own.
        inside: what it holds, in order.
    """

    kind: str
    start: int
    stop: int
    own_products: int = 0
    inside: list["Region"] = dataclasses.field(default_factory=list)

    @property
    def own(self) -> int:
        """Bundles that belong to none of the regions inside."""
        return self.bundles - sum(region.bundles for region in self.inside)

    @property
    def bundles(self) -> int:
        """All of its bundles, each once."""
        return self.stop - self.start

    @property
    def products(self) -> int:
        """Matrix products in it and in all that it holds."""
        return self.own_products + sum(region.products for region in self.inside)

    def walk(self) -> Iterator["Region"]:
        """Itself and all that it holds, outer before inner, in the order of their addresses."""
        yield self
        for region in self.inside:
            yield from region.walk()

    def outline(self, depth: int = 0) -> str:
        """A line for each region, for people: its kind, its bundles (own of all) and its products."""
        line = f"{'  ' * depth}{self.kind} {self.start:#x}: {self.own} of {self.bundles} bundles, {self.own_products} products"
        return "\n".join([line, *(region.outline(depth + 1) for region in self.inside)])


def read_kernels(folder: str | Path, named: str) -> dict[str, Region]:
    """The kernels in a folder of dumps whose names hold `named`, by the compiler's names for them.

    Raises:
        CptjaxError: no such final dump is there, or one is not understood; the message names it.
    """
    found = {}
    for path in sorted(Path(folder).glob("*-final_bundles.txt")):
        # "-schedule-analysis_final_bundles.txt" and its like end alike and are something else.
        match = _FILE.match(path.name)
        if match and named in match["name"]:
            try:
                found[match["name"]] = read_bundles(path.read_text(encoding="utf-8", errors="replace"))
            except CptjaxError as error:
                raise CptjaxError(f"{path}: {error}") from None
    if not found:
        raise CptjaxError(f"{folder} holds no final LLO dump of a kernel named {named!r}.")
    return found


def read_bundles(text: str) -> Region:
    """One kernel's dump.

    Raises:
        CptjaxError: it is cut off, or is something else.
    """
    bundles, whole = 0, False
    products: list[int] = []  # the address of each
    branches: list[tuple[int, str]] = []  # address, the region it leads to
    begins: dict[str, int] = {}  # region -> the address of its first bundle
    ends: list[tuple[int, int]] = []  # of a region the address of its last bundle, and of its first
    for line in text.splitlines():
        match = _BUNDLE.match(line)
        if not match:
            continue
        address = int(match[1], 16)
        bundles = max(bundles, address + 1)
        whole = whole or _EXIT in line
        products += [address] * len(_PRODUCT.findall(line))
        branches += [(address, target) for target in _BRANCH.findall(line)]
        for region in _BEGINS.findall(line):
            begins.setdefault(region, address)
        ends += [(address, begins.get(region, bundles)) for region in _ENDS.findall(line)]
    if not whole:
        raise CptjaxError("this is no whole dump of a kernel's bundles: no bundle in it is the kernel's exit.")
    # The kernel's very end begins no region of its own; a core with nothing to do goes there at once.
    reaches = {_reach(address, begins.get(target, bundles), ends) for address, target in branches}
    kernel = Region(KERNEL, 0, bundles)
    for start, stop, kind in sorted(reaches, key=lambda each: (each[0], -each[1])):
        _insert(kernel, Region(kind, start, stop))
    for address in products:
        _innermost(kernel, address).own_products += 1
    return kernel


def _reach(address: int, target: int, ends: list[tuple[int, int]]) -> tuple[int, int, str]:
    """First address, address after the last, and kind of what a branch at `address` repeats or skips."""
    if target <= address:
        return target, address + 1, LOOP
    # What stands behind a branch for a few bundles is executed still, and ends the region that the branch is in.
    near = range(address + 1, min(address + _DELAY, target - 1))
    slots = (end + 1 for end, begin in ends if begin <= address and end in near)
    return next(slots, address + 1), target, SKIPPED


def _insert(outer: Region, region: Region) -> None:
    """Puts `region`, which begins no earlier than all those before it, where it belongs within `outer`."""
    if outer.inside:
        last = outer.inside[-1]
        if region.stop <= last.stop:
            return _insert(last, region)
        region.start = max(region.start, last.stop)  # delay slots of one alternative overlap the next
    region.stop = min(region.stop, outer.stop)
    if region.start < region.stop:
        outer.inside.append(region)


def _innermost(region: Region, address: int) -> Region:
    for inner in region.inside:
        if inner.start <= address < inner.stop:
            return _innermost(inner, address)
    return region
