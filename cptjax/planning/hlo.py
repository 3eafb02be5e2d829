"""Compiled HLO text (`compiled.as_text()`, or a dump of XLA's) as computations of instructions, as far as planning reads it.

The text and not a proto: it is what every version of JAX gives, what XLA dumps, and what a reader has on the screen.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([^\s(]+) \(.*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%?(\S+) = ")
_CALLED = re.compile(
    r"\b(?:calls|condition|body|to_apply|called_computations|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_ENDS = re.compile(r"^\}(?!\})")  # a line that begins with two ends what a kernel says of itself, over several lines
_OPERAND = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation: `name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    inside: str
    attributes: str
    root: bool

    @property
    def operands(self) -> tuple[str, ...]:
        """The names of the instructions whose results it takes."""
        return tuple(_OPERAND.findall(self.inside))

    def attribute(self, name: str) -> str:
        """The name of the computation that an attribute like `body=%x` names; "" where there is none."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that it calls, by whatever attribute."""
        return tuple(
            name.strip(" %")
            for found in _CALLED.finditer(self.attributes)
            for name in found[1].strip("{}").split(",")
            if name.strip()
        )


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its computations by name, each in the order of its schedule (where the text is of a scheduled program)."""

    computations: Mapping[str, Sequence[Instruction]]
    entry: str
    partitions: int


def parse_module(text: str) -> Module:
    """The module in `text`.

    Raises:
        ValueError: it is no HLO text: no computation is an ENTRY.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith((" ", "}")) and (header := _HEADER.match(line)):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif _ENDS.match(line):
            current = None
        elif current is not None and (instruction := _instruction(line)) is not None:
            current.append(instruction)
    if not entry:
        raise ValueError("this is no HLO text: no computation in it begins with ENTRY.")
    counts = {name: re.search(rf"\b{name}=(\d+)", text[:100_000]) for name in ("num_partitions", "replica_count")}
    return Module(computations, entry, math.prod(int(found[1]) for found in counts.values() if found))


def _instruction(line: str) -> Instruction | None:
    name = _NAME.match(line)
    if name is None:
        return None
    start = name.end()
    kind = line[start : _balanced(line, start) if line[start] == "(" else line.index(" ", start)]
    rest = line[start + len(kind) :].lstrip()
    opcode, bracket, _ = rest.partition("(")
    if not bracket:
        return None
    end = _balanced(rest, len(opcode))
    return Instruction(name[2], kind, opcode, rest[len(opcode) + 1 : end - 1], rest[end:], bool(name[1]))


def _balanced(text: str, start: int) -> int:
    """The index behind the bracket that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return len(text)


@functools.lru_cache(maxsize=4096)
def arrays_of(kind: str) -> tuple[tuple[str, int], ...]:
    """Each array in a type and its bytes, ("bf16[8,128]", 2048) of `bf16[8,128]{1,0}`; of a tuple, nested ones too, in order."""
    return tuple(
        (f"{dtype}[{shape}]", math.prod(int(size) for size in shape.split(",") if size) * _bits(dtype) // 8)
        for dtype, shape in _ARRAY.findall(kind)
    )


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    width = re.search(r"\d+", dtype)  # f32, bf16, s8, f8e4m3fn, u4
    return int(width[0]) if width else 0


def trip_count(module: Module, loop: Instruction) -> int | None:
    """How often the body of a `while` runs; None where the text does not tell.

    XLA writes it down where it knows it (`known_trip_count`). libtpu does not: there it is the constant that the condition
    compares the counter with, which JAX and XLA's own loops begin at 0 and move by 1.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
        return int(known[1])
    condition = module.computations.get(loop.attribute("condition"), ())
    constants = {each.name: each.inside for each in condition if each.opcode == "constant"}
    root = next((each for each in condition if each.root), None)
    compared = _comparison(module, root) if root is not None else None
    if compared is None or "direction=LT" not in compared.attributes:
        return None
    bounds = [constants[name] for name in root.operands if name in constants]
    return int(bounds[0]) if len(bounds) == 1 and bounds[0].isdigit() else None


def _comparison(module: Module, root: Instruction) -> Instruction | None:
    """The `compare` that a condition ends with, also where it alone was made a fusion."""
    if root.opcode == "fusion":
        inside = module.computations.get(root.attribute("calls"), ())
        root = next((each for each in inside if each.root), root)
    return root if root.opcode == "compare" else None
