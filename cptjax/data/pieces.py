"""Documents, put together again from the pieces that packed rows hold of them."""

import bisect
import dataclasses
from collections.abc import Iterator

import numpy as np

from cptjax.data.packing import BEST_FIT, Row
from cptjax.data.rows import RowReader
from cptjax.data.tokenizer import Tokenizer

_ROWS = 512  # read at a time
_BLOCK = 1 << 20  # tokens of documents that are in memory at a time


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Every piece of a folder of rows, in the order of the documents and within each in the order of its text.

    Attributes:
        ordinal: int64 [pieces], the document; row: int64, the row that holds it; at: int64, where in that row's stream it
            begins (with the token of context); length: int64, its positions.
    """

    ordinal: np.ndarray
    row: np.ndarray
    at: np.ndarray
    length: np.ndarray


def all_pieces(reader: RowReader) -> Pieces:
    """Where each document of the folder lies. Every row is read once; four numbers a piece are kept."""
    ordinal, row, at, length = ([np.zeros(0, np.int64)] for _ in range(4))
    for begin in range(0, len(reader), _ROWS):
        for number, found in enumerate(reader.pieces(range(begin, min(begin + _ROWS, len(reader)))), start=begin):
            ordinal.append(found.ordinals.astype(np.int64))
            length.append(found.lengths)
            row.append(np.full(len(found.lengths), number))
            at.append(_begins(found))
    each = [np.concatenate(column) for column in (ordinal, row, at, length)]
    # A document's pieces follow each other from row to row, but best_fit puts its last, shorter one anywhere.
    manifest = reader.manifest
    last = (each[3] < manifest.sequence_length) & (manifest.packing == BEST_FIT)
    order = np.lexsort((each[1], last, each[0]))
    return Pieces(*(column[order] for column in each))


def documents(reader: RowReader, pieces: Pieces) -> Iterator[tuple[int, np.ndarray]]:
    """(ordinal, tokens) of each document that the rows hold, in order; the token that begins it and EOS included.

    A block of documents is in memory at a time. A row whose documents are in several blocks is read for each.
    """
    starts = np.flatnonzero(np.diff(pieces.ordinal, prepend=-1))
    read_before = np.r_[0, np.cumsum(pieces.length)]
    first = 0
    while first < len(starts):
        most = np.searchsorted(read_before[starts], read_before[starts[first]] + _BLOCK, "right") - 1
        last = max(first + 1, int(most))
        block = slice(starts[first], starts[last] if last < len(starts) else len(pieces.row))
        rows, which = np.unique(pieces.row[block], return_inverse=True)
        streams = [
            row.stream for begin in range(0, len(rows), _ROWS) for row in reader.pieces(rows[begin : begin + _ROWS])
        ]
        ends = [*(starts[first + 1 : last] - block.start), block.stop - block.start]
        begin = 0
        for end in ends:
            tokens = []
            for k in range(begin, end):
                at, length = pieces.at[block.start + k], pieces.length[block.start + k]
                # The first token of a piece that goes on is the last of the piece before.
                tokens.append(streams[which[k]][at + (k > begin) : at + length + 1])
            yield int(pieces.ordinal[block.start + begin]), np.concatenate(tokens)
            begin = end
        first = last


def text_of(tokens: np.ndarray, reader: RowReader, tokenizer: Tokenizer) -> str:
    """The text of a document that `documents` gave, as decoded from its tokens."""
    return tokenizer.decode(tokens[1:-1] if tokens[-1] == reader.manifest.eos else tokens[1:])


def positions_before(reader: RowReader, number: int, row: Row, sizes: list[int]) -> list[int]:
    """For each piece of the row `number`: how many positions of its document come before it.

    Args:
        sizes: positions of each piece's document in all.

    Only a document that fills this whole row and goes on is looked for in other rows, by bisection.
    """
    length = reader.manifest.sequence_length
    best_fit = reader.manifest.packing == BEST_FIT
    before = []
    for k, (n, ordinal, size) in enumerate(zip(row.lengths.tolist(), row.ordinals.tolist(), sizes, strict=True)):
        if n == size or (k and not best_fit):
            before.append(0)
        elif best_fit and n < length or not best_fit and len(row.lengths) > 1:  # it ends here
            before.append(size - n)
        else:
            # Rows are in the order of their first documents (best_fit), or of all of them.
            end = 0 if best_fit else -1
            first = bisect.bisect_left(
                range(number), ordinal, key=lambda r, end=end: reader.pieces([r])[0].ordinals[end]
            )
            there = 0 if first == number else length if best_fit else int(reader.pieces([first])[0].lengths[-1])
            before.append(there + max(0, number - first - 1) * length)
    return before


def _begins(row: Row) -> np.ndarray:
    """Where in the stream each piece begins: every piece holds one token more than positions."""
    return np.cumsum(row.lengths + 1) - row.lengths - 1
