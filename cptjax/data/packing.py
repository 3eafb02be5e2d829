"""Documents into fixed-length rows: concatenate and split, no position wasted, every token a target exactly once.

A document is `[start] + tokens + [EOS]`. A piece of it with n + 1 tokens gives n (input, target) positions. When a
row is full, the document's next piece begins again with the last token of the former one, as context only.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np


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


def pack(documents: Iterable[tuple[int, np.ndarray]], sequence_length: int) -> Iterator[Row]:
    """Packs `(ordinal, tokens)` into rows of `sequence_length` positions; only the last row may be shorter.

    A document of fewer than two tokens has nothing to predict and is skipped.
    """
    lengths: list[int] = []
    ordinals: list[int] = []
    pieces: list[np.ndarray] = []
    free = sequence_length
    for ordinal, tokens in documents:
        at, last = 0, len(tokens) - 1
        while at < last:
            n = min(free, last - at)
            lengths.append(n)
            ordinals.append(ordinal)
            pieces.append(tokens[at : at + n + 1])
            at += n
            free -= n
            if not free:
                yield _row(lengths, ordinals, pieces)
                lengths, ordinals, pieces, free = [], [], [], sequence_length
    if pieces:
        yield _row(lengths, ordinals, pieces)


def _row(lengths: list[int], ordinals: list[int], pieces: list[np.ndarray]) -> Row:
    return Row(np.array(lengths, np.int64), np.array(ordinals, np.int64), np.concatenate(pieces))
