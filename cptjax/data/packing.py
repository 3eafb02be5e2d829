"""Documents into fixed-length rows, every token a target exactly once.

A document is `[start] + tokens + [EOS]`. A piece of it with n + 1 tokens gives n (input, target) positions. Where a document
is cut, its next piece begins again with the last token of the former one, as context only.

- `concatenate_and_split`: documents one after another, cut where a row is full: no position is wasted.
- `best_fit`: only documents longer than a row are cut, into whole rows and a rest; rests and whole documents are put, longest
  first, where the least room is left that holds them (Ding et al., arXiv 2404.10830): no document that fits in a row is cut.
"""

import bisect
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from jaxtyping import Int

CONCATENATE, BEST_FIT = "concatenate_and_split", "best_fit"
PACKINGS = (CONCATENATE, BEST_FIT)
Lengths = Int[np.ndarray, " documents"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One packed row before padding.

    Attributes:
        lengths: positions of each piece (its tokens less one), each at least 1, together at most the sequence length.
        ordinals: the document that each piece comes from.
        stream: the pieces' tokens one after the other, `sum(lengths) + len(lengths)` of them.
        weights: the loss weight of each position, `sum(lengths)` of them; None says 1 everywhere.
    """

    lengths: np.ndarray
    ordinals: np.ndarray
    stream: np.ndarray
    weights: np.ndarray | None = None


def pack(
    documents: Iterable[tuple[int, np.ndarray]], sequence_length: int, counts_from: Mapping[int, int] | None = None
) -> Iterator[Row]:
    """Packs `(ordinal, tokens)` into rows of `sequence_length` positions; only the last row may be shorter, but for
    what `counts_from` says.

    A document of fewer than two tokens has nothing to predict and is skipped.

    Args:
        counts_from: ordinal -> targets at the document's beginning whose weight is 0; None: rows without weights. With it a
            document that fits in a row is not cut: what counts is read after all that comes before it.
    """
    lengths: list[int] = []
    ordinals: list[int] = []
    firsts: list[int] = []
    pieces: list[np.ndarray] = []
    free = sequence_length
    for ordinal, tokens in documents:
        at, last = 0, len(tokens) - 1
        if counts_from is not None and free < last <= sequence_length:
            yield _row(lengths, ordinals, firsts, pieces, counts_from)
            lengths, ordinals, firsts, pieces, free = [], [], [], [], sequence_length
        while at < last:
            n = min(free, last - at)
            lengths.append(n)
            ordinals.append(ordinal)
            firsts.append(at)
            pieces.append(tokens[at : at + n + 1])
            at += n
            free -= n
            if not free:
                yield _row(lengths, ordinals, firsts, pieces, counts_from)
                lengths, ordinals, firsts, pieces, free = [], [], [], [], sequence_length
    if pieces:
        yield _row(lengths, ordinals, firsts, pieces, counts_from)


def best_fit(lengths: Lengths, sequence_length: int) -> list[list[tuple[int, int, int]]]:
    """Which pieces share a row: (document, first position, positions) of each, rows in the order that they are written.

    Best-fit decreasing: rows with the same room are alike, so that a search among the rooms there are finds the best. Rows are
    in the order of their first document.

    Args:
        lengths: positions of each document: its tokens less one. Those of none are left out.
    """
    rows: list[list[tuple[int, int, int]]] = []
    rest = []
    for document, length in enumerate(lengths.tolist()):
        whole, remainder = divmod(length, sequence_length)
        rows += [[(document, i * sequence_length, sequence_length)] for i in range(whole)]
        if remainder:
            rest.append((remainder, document, whole * sequence_length))
    by_room: dict[int, list[int]] = {}  # room -> rows that have just so much left, the first made last
    rooms: list[int] = []  # the rooms there are, ascending
    for length, document, first in sorted(rest, key=lambda each: (-each[0], each[1])):
        at = bisect.bisect_left(rooms, length)
        if at == len(rooms):
            row, room = len(rows), sequence_length
            rows.append([])
        else:
            room = rooms[at]
            row = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        rows[row].append((document, first, length))
        if left := room - length:
            if left not in by_room:
                bisect.insort(rooms, left)
            by_room.setdefault(left, []).append(row)
    for row in rows:
        row.sort()
    return sorted(rows)


def pack_best_fit(
    ordinals: Lengths,
    lengths: Lengths,
    tokens: Callable[[int], np.ndarray],
    sequence_length: int,
    counts_from: Mapping[int, int] | None = None,
) -> Iterator[Row]:
    """The rows of `best_fit`.

    Args:
        ordinals: of each document; lengths: its positions, its tokens less one.
        tokens: the place of a document in these -> its tokens.
        counts_from: as of `pack`.
    """
    for row in best_fit(np.maximum(lengths, 0), sequence_length):
        pieces = [tokens(document)[first : first + length + 1] for document, first, length in row]
        own = [int(ordinals[document]) for document, _, _ in row]
        yield _row([length for _, _, length in row], own, [first for _, first, _ in row], pieces, counts_from)


def _row(
    lengths: list[int],
    ordinals: list[int],
    firsts: list[int],
    pieces: list[np.ndarray],
    counts_from: Mapping[int, int] | None,
) -> Row:
    weights = None
    if counts_from is not None:
        each = zip(ordinals, firsts, lengths, strict=True)
        weights = np.concatenate([np.arange(at, at + n) >= counts_from[which] for which, at, n in each])
        weights = weights.astype(np.float32)
    return Row(np.array(lengths, np.int64), np.array(ordinals, np.int64), np.concatenate(pieces), weights)
