"""What a step of a run reads, as text: each row of its global batch, with its documents.

The text is as decoded from the tokens: what the tokenizer cannot give back (normalised letters, a character cut in two by a
row's end) differs from the text that was tokenized.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cptjax.data.pieces import positions_before
from cptjax.data.plan import DataPlan
from cptjax.data.rows import RowReader
from cptjax.data.tokenizer import Tokenizer

_ROWS = 256  # decoded at a time


@dataclasses.dataclass(frozen=True)
class ReadPiece:
    """A stretch of a document in a row.

    Attributes:
        id: the document's.
        context: the token that the first prediction is made from: the start token, or the last of the piece before.
        tokens: those predicted, in order; EOS where the document ends here.
        first: how many of the document's tokens come before `tokens`; of: how many it has (EOS counts, the start not).
        text: of `tokens` without EOS: the texts of a document's pieces, one after another, are its text.
    """

    id: str
    context: int
    tokens: tuple[int, ...]
    first: int
    of: int
    text: str

    @property
    def begins(self) -> bool:
        """Whether the document begins here."""
        return self.first == 0

    @property
    def ends(self) -> bool:
        """Whether it ends here."""
        return self.first + len(self.tokens) == self.of


@dataclasses.dataclass(frozen=True)
class ReadRow:
    """A row of a step's global batch.

    Attributes:
        step: as the log counts, from 1; index: in the batch, from 0; row: in the source, from 0; epoch: of the source, from 1.
        padding: positions that hold nothing.
    """

    step: int
    index: int
    source: str
    row: int
    epoch: int
    pieces: tuple[ReadPiece, ...]
    padding: int


def rows_of_step(
    readers: Mapping[str, RowReader], plan: DataPlan, tokenizer: Tokenizer, step: int
) -> Iterator[ReadRow]:
    """The rows of `step` (counted from 0), in the order of the batch.

    Raises:
        IndexError: a step outside the run.
    """
    for begin in range(0, plan.batch_rows, _ROWS):
        which = slice(begin, min(begin + _ROWS, plan.batch_rows))
        source, row = plan.rows(step, which)
        _, epoch = plan.epochs_of(step, which)
        found: dict[int, tuple[ReadPiece, ...]] = {}
        for i in np.unique(source):
            mine = np.flatnonzero(source == i)
            found.update(
                zip(mine.tolist(), read_rows(readers[plan.names[i]], row[mine].tolist(), tokenizer), strict=True)
            )
        for k in range(len(source)):
            reader = readers[plan.names[source[k]]]
            padding = reader.manifest.sequence_length - sum(len(piece.tokens) for piece in found[k])
            yield ReadRow(step + 1, begin + k, plan.names[source[k]], int(row[k]), int(epoch[k]) + 1, found[k], padding)


def read_rows(reader: RowReader, numbers: Sequence[int], tokenizer: Tokenizer) -> Iterator[tuple[ReadPiece, ...]]:
    """The pieces of each of the rows `numbers` of one source."""
    rows = reader.pieces(numbers)
    ordinals = sorted({ordinal for row in rows for ordinal in row.ordinals.tolist()})
    known = dict(zip(ordinals, reader.documents(ordinals), strict=True))
    for number, row in zip(numbers, rows, strict=True):
        held = [known[ordinal] for ordinal in row.ordinals.tolist()]
        before = positions_before(reader, number, row, [document["tokens"] for document in held])
        pieces, at = [], 0
        for document, first, length in zip(held, before, row.lengths.tolist(), strict=True):
            context, *tokens = row.stream[at : at + length + 1].tolist()
            at += length + 1
            ended = first + length == document["tokens"] and tokens[-1] == reader.manifest.eos
            text = piece_text(tokenizer, context, tokens[:-1] if ended else tokens, begins=first == 0)
            pieces.append(ReadPiece(document["id"], context, tuple(tokens), first, document["tokens"], text))
        yield tuple(pieces)


def piece_text(tokenizer: Tokenizer, context: int, tokens: Sequence[int], begins: bool) -> str:
    """The text of `tokens` alone, which may stand within a document, behind `context`."""
    if begins:
        return tokenizer.decode(tokens)
    # A decoder may take a text's first space away: it is given what comes before, and that is taken off again.
    before, both = tokenizer.decode([context]), tokenizer.decode([context, *tokens])
    return both[len(before) :] if both.startswith(before) else tokenizer.decode(tokens)
