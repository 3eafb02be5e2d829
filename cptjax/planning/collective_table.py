"""Collectives as a table: those alike in one line, the loops last, so that the costly ones can be seen."""

import dataclasses
from collections.abc import Iterable, Sequence

from cptjax.counts import in_bytes
from cptjax.planning.collectives import Collective


@dataclasses.dataclass(frozen=True)
class Group:
    """Collectives that are alike: kind, group, loops, how they are carried out.

    number: instructions; bytes, sent: of all of them in one run of the program, a device's.
    largest: bytes of the largest one, once.
    """

    kind: str
    where: str
    group: int
    how: str
    number: int
    times: int
    bytes: float
    sent: float
    largest: int
    shape: str


def how(collective: Collective) -> str:
    """In a word or two: whether other work hides it."""
    if collective.overlapped:
        return "overlapped"
    if collective.asynchronous:
        return "waited for"
    return "fused" if collective.fused else "synchronous"


def where(collective: Collective) -> str:
    """The loops that it is in: "outside", or the trips of each from the outermost."""
    return "x".join("?" if loop.trips is None else str(loop.trips) for loop in collective.loops) or "outside"


def grouped(collectives: Iterable[Collective]) -> list[Group]:
    """Groups of those alike, what sends most first."""
    alike: dict[tuple[str, str, int, str], list[Collective]] = {}
    for each in collectives:
        alike.setdefault((each.kind, where(each), each.group, how(each)), []).append(each)
    groups = []
    for (kind, place, group, manner), members in alike.items():
        largest = max(members, key=lambda each: each.bytes)
        groups.append(
            Group(
                kind,
                place,
                group,
                manner,
                len(members),
                sum(each.times for each in members),
                float(sum(each.bytes * each.times for each in members)),
                sent(members),
                largest.bytes,
                largest.dtype_shape,
            )
        )
    return sorted(groups, key=lambda group: -group.sent)


def table(groups: Sequence[Group]) -> list[str]:
    """Lines for a terminal. A device's bytes, of one run of the program."""
    lines = [
        f"{'collective':20} {'loop trips':>10} {'among':>6} {'how':12} {'number':>6} {'runs':>6} "
        f"{'bytes':>8} {'sent':>8}  largest"
    ]
    for each in groups:
        lines.append(
            f"{each.kind:20} {each.where:>10} {each.group:>6} {each.how:12} {each.number:>6} {each.times:>6} "
            f"{in_bytes(each.bytes):>8} {in_bytes(each.sent):>8}  {each.shape} ({in_bytes(each.largest)})"
        )
    return lines


def sent(collectives: Iterable[Collective]) -> float:
    """Bytes that a device sends in one run of the program."""
    return float(sum(each.sent * each.times for each in collectives))


def exposed(collectives: Iterable[Collective]) -> float:
    """Those with nothing scheduled beside them: what a search ranks by."""
    return sent(each for each in collectives if not each.overlapped)
