"""The collectives of a compiled program: what is sent, among how many devices, in which loop, and whether anything hides it."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from cptjax.planning.hlo import Instruction, Module, arrays_of, parse_module, trip_count

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_START, _DONE = "-start", "-done"
# What starts a computation of its own; the latter where a TPU's SparseCores do the sending.
_CALLED_START = ("async-start", "call-start")
# libtpu writes an asynchronous collective as three fusions: one that starts it, one or more in which it goes on beside other
# work, and one that waits for it. Each holds the instruction; the first alone is counted.
_FUSED_START, _FUSED_DONE, _FUSED_MIDDLE = "async-collective-start", "async-collective-done", "async_collective_fusion"
_FUSED_SCATTER = "all-reduce-scatter"  # a reduce-scatter, which libtpu writes as a fusion of an all-reduce and a slice
_GROUPS = re.compile(r"replica_groups=(\{[\d,{}]*\}|mesh\[[^\]]*\]\s*\{[^}]*\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)")
_WORK = ("fusion", "convolution", "dot", "custom-call", "while", "call", "conditional")


@dataclasses.dataclass(frozen=True)
class Loop:
    """A `while` that a collective is in. trips: None where the text does not tell; then it counts once."""

    name: str
    trips: int | None


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction of a program.

    Attributes:
        bytes: of the whole array that the group holds together: what a gather ends with, what a reduction begins with on each
            device, what a permutation sends.
        dtype_shape: the largest of its results, as the text says it.
        first_group: the devices of the first group that takes part together, as the program counts them: in the order of its
            mesh. groups: how many such groups there are.
        loops: that it is in, outermost first.
        asynchronous: it is begun in one place and waited for in another.
        overlapped: asynchronous, and other work is scheduled in between.
        fused: it stands inside a fusion, together with what makes or uses its data.
        source: where the program says it comes from (JAX's op_name).
    """

    name: str
    kind: str
    bytes: int
    dtype_shape: str
    first_group: tuple[int, ...]
    groups: int
    loops: tuple[Loop, ...]
    asynchronous: bool
    overlapped: bool
    fused: bool
    source: str

    @property
    def group(self) -> int:
        """How many devices take part together."""
        return len(self.first_group)

    @property
    def times(self) -> int:
        """How often it runs when the program runs once."""
        return math.prod(loop.trips or 1 for loop in self.loops)

    @property
    def sent(self) -> float:
        """Bytes that each device sends each time, by the ring that needs the fewest."""
        if self.kind in ("collective-permute", "collective-broadcast"):
            return float(self.bytes)
        part = 1 - 1 / self.group
        return self.bytes * part * (2.0 if self.kind == "all-reduce" else 1.0)


def collectives_of(text: str) -> list[Collective]:
    """Every collective that the program of this HLO text runs, each instruction once, with the loops that it is in.

    Raises:
        ValueError: it is no HLO text.
    """
    module = parse_module(text)
    return list(_walk(module, module.entry, (), False, False))


def _walk(module: Module, computation: str, loops: tuple[Loop, ...], fused: bool, hidden: bool) -> Iterator[Collective]:
    """Those of a computation and of what it calls; `hidden`: it is one that starts what other work hides."""
    instructions = module.computations.get(computation, ())
    for index, instruction in enumerate(instructions):
        opcode, calls = instruction.opcode, instruction.called
        kind = opcode.removesuffix(_START)
        if kind in KINDS:
            started = opcode.endswith(_START)
            overlapped = hidden or (started and _work_follows(instructions, index))
            yield _collective(module, instruction, kind, loops, started or hidden, overlapped, fused)
        elif opcode == "while":
            loop = Loop(instruction.name, trip_count(module, instruction))
            yield from _walk(module, instruction.attribute("body"), (*loops, loop), fused, hidden)
        elif opcode == "fusion":
            [called] = calls[:1] or [""]
            if instruction.name.startswith(_FUSED_DONE) or called.startswith(_FUSED_MIDDLE):
                continue
            starts = instruction.name.startswith(_FUSED_START)
            overlapped = starts and _work_follows(instructions, index)
            for each in _walk(module, called, loops, True, overlapped):
                if each.kind == "all-reduce" and _FUSED_SCATTER in f"{instruction.name} {called}":
                    each = dataclasses.replace(each, kind="reduce-scatter")
                yield dataclasses.replace(each, asynchronous=True) if starts else each
        elif opcode.endswith(_START) or opcode in ("call", "conditional"):
            starts = opcode in _CALLED_START
            overlapped = hidden or (starts and _work_follows(instructions, index))
            for called in calls:
                for each in _walk(module, called, loops, fused, overlapped):
                    yield dataclasses.replace(each, asynchronous=True) if starts else each


def _work_follows(instructions: Sequence[Instruction], index: int) -> bool:
    """Whether other work is scheduled between the start at `index` and what waits for it.

    What SparseCores do is begun by a call-start without arrays, which a call-update then gives: sending begins there.
    """
    waited, work, given = {instructions[index].name}, False, False
    for each in instructions[index + 1 :]:
        uses = not waited.isdisjoint(each.operands)
        if uses and (each.opcode.endswith(_DONE) or each.name.startswith(_FUSED_DONE)):
            break
        if uses:  # an element of what was started, or the fusion in which it goes on
            waited.add(each.name)
            if each.opcode == "call-update" and not given:
                work, given = False, True
            called = each.called
            if each.opcode == "fusion" and called and called[0].startswith(_FUSED_MIDDLE):
                return True
        elif each.opcode in _WORK and not each.name.startswith((_FUSED_START, _FUSED_DONE)):
            work = True
    return work


def _collective(
    module: Module,
    instruction: Instruction,
    kind: str,
    loops: tuple[Loop, ...],
    asynchronous: bool,
    overlapped: bool,
    fused: bool,
) -> Collective:
    first_group, groups = _groups(module, instruction.attributes)
    source = re.search(r'op_name="((?:[^"\\]|\\.)*)"', instruction.attributes)
    results = _results(instruction, kind)
    largest, _ = max(results, key=lambda each: each[1], default=("", 0))
    size = sum(size for _, size in results) * (len(first_group) if kind == "reduce-scatter" else 1)
    return Collective(
        instruction.name,
        kind,
        size,
        largest,
        first_group,
        groups,
        loops,
        asynchronous,
        overlapped,
        fused,
        source[1] if source else "",
    )


def _results(instruction: Instruction, kind: str) -> Sequence[tuple[str, int]]:
    """The arrays that it ends with, and their bytes. A start's type is what it was given, then its results, one for each, then
    u32[] of its own; an all-reduce's start has results alone.
    """
    arrays = arrays_of(instruction.type)
    if not instruction.opcode.endswith(_START) or kind == "all-reduce":
        return arrays
    while len(arrays) > 2 and arrays[-1][0] == "u32[]":
        arrays = arrays[:-1]
    return arrays[len(arrays) // 2 :]


@functools.lru_cache(maxsize=256)
def _ring(pairs: str) -> tuple[tuple[int, ...], int]:
    """The first cycle, or chain, of source_target_pairs, and how many there are."""
    to = {int(source): int(target) for source, target in re.findall(r"\{(\d+),(\d+)\}", pairs)}
    left = dict.fromkeys(
        [*sorted(set(to) - set(to.values())), *sorted(to)]
    )  # chains from where they begin, then cycles
    rings = []
    while left:
        here = next(iter(left))
        ring = [here]
        while here in left:
            del left[here]
            here = to[here]
            ring += [here] if here != ring[0] else []
        rings.append(tuple(ring))
    return (max(rings, key=len), len(rings)) if rings else ((0,), 1)


@functools.lru_cache(maxsize=1024)
def _named_groups(devices: int, text: str) -> tuple[tuple[int, ...], int]:
    """The first of the groups that `replica_groups=` lists, in the three ways that XLA writes them, and their number."""
    if iota := re.match(r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape = [int(size) for size in iota[3].split(",")]
        order = [int(axis) for axis in iota[4].split(",")] if iota[4] else range(len(shape))
        ids = np.arange(math.prod(shape)).reshape(shape).transpose(order).reshape(int(iota[1]), int(iota[2]))
        return tuple(ids[0].tolist()), int(iota[1])
    if named := re.match(r"mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        return _mesh_groups(named[1], named[2])
    if lists := re.match(r"\{(\{[\d,]*\}(?:,\{[\d,]*\})*)\}", text):
        each = lists[1].strip("{}").split("},{")
        return tuple(int(device) for device in each[0].split(",")), len(each)
    return tuple(range(devices)), 1


def _mesh_groups(mesh: str, over: str) -> tuple[tuple[int, ...], int]:
    """Groups over axes of a mesh: `'a'=2,'b'=8` and `'b'`, or `'b':(2)4` for a part of an axis, 4 wide behind one 2 wide."""
    sizes, chosen = [], []
    axes = [(name, int(size)) for name, size in re.findall(r"'([^']*)'=(\d+)", mesh)]
    parts: dict[str, list[tuple[int, int]]] = {}
    for name, before, part in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", over):
        parts.setdefault(name, []).append((int(before or 1), int(part or dict(axes)[name])))
    for name, size in axes:
        done = 1
        for before, part in sorted(parts.get(name, ())):
            sizes += [before // done, part]
            chosen += [False, True]
            done = before * part
        sizes.append(size // done)
        chosen.append(False)
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    first = ids[tuple(slice(None) if each else 0 for each in chosen)].reshape(-1)
    return tuple(first.tolist()), ids.size // first.size


def _groups(module: Module, attributes: str) -> tuple[tuple[int, ...], int]:
    if pairs := re.search(r"source_target_pairs=(\{[^a-z]*\})", attributes):
        return _ring(pairs[1])
    found = _GROUPS.search(attributes)
    return _named_groups(module.partitions, found[1] if found else "")
