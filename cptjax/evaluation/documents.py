"""What a model makes of each held-out document: nats, tokens and bytes, for intervals and paired differences."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jax.sharding import Mesh

from cptjax.data.rows import RowReader
from cptjax.evaluation.loss import SourceLoss, build_token_nats, scored_batches
from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params
from cptjax.models.numerics import Numerics
from cptjax.watching import Watch, unwatched

# Scored at once where the mesh does not cut the batch: positions, and logits (float32 [rows, length, vocabulary]). Every
# source has the same shape, so that one program serves them all; small batches leave little of the last one empty.
BATCH_TOKENS = 4096
BATCH_LOGITS = 1 << 24


@dataclasses.dataclass(frozen=True)
class DocumentLosses:
    """By document, in the order of the rows: its name, nats over its targets, their number, and its raw UTF-8 bytes."""

    names: tuple[str, ...]
    nats: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def total(self) -> SourceLoss:
        """The source's loss, as training logs it."""
        return SourceLoss(float(self.nats.sum()), int(self.tokens.sum()), int(self.bytes.sum()))

    def take(self, indices: Sequence[int]) -> "DocumentLosses":
        """Some of the documents."""
        return DocumentLosses(
            tuple(self.names[i] for i in indices), self.nats[indices], self.tokens[indices], self.bytes[indices]
        )


def document_losses(
    params: Params,
    config: DecoderConfig,
    numerics: Numerics,
    reader: RowReader,
    mesh: Mesh,
    watch: Watch = unwatched,
) -> DocumentLosses:
    """Scores all rows of a held-out split and adds up each document's pieces in float64."""
    documents = reader.documents(range(reader.manifest.documents))
    nats, tokens = np.zeros(len(documents)), np.zeros(len(documents))
    score = build_token_nats(config, numerics)
    batch_rows = rows_at_once(reader.manifest.sequence_length, config.vocabulary, mesh)
    first = 0
    scoring = scored_batches(score, params, reader.read, len(reader), batch_rows, mesh)
    for scored in watch(scoring, -(-len(reader) // batch_rows), f"scoring {reader.manifest.source}, batches"):
        for row, values in zip(reader.pieces(range(first, first + len(scored))), scored, strict=True):
            begins = np.cumsum(row.lengths) - row.lengths
            positions = int(row.lengths.sum())
            weights = np.ones(positions) if row.weights is None else row.weights.astype(np.float64)
            np.add.at(nats, row.ordinals, np.add.reduceat(values[:positions], begins))
            np.add.at(tokens, row.ordinals, np.add.reduceat(weights, begins))
        first += len(scored)
    return DocumentLosses(
        tuple(document["id"] for document in documents),
        nats,
        tokens,
        np.array([document["bytes"] for document in documents], np.int64),
    )


def in_common(one: DocumentLosses, other: DocumentLosses) -> tuple[DocumentLosses, DocumentLosses]:
    """The documents that both measured, side by side: all of them, where both have the same rows.

    Documents are the same whose names and bytes are (the first of that name is the other's first, and so on). Which are held
    out depends on the tokenizer where VALIDATION_TOKENS ends the held-out part.
    """
    theirs = {key: i for i, key in enumerate(document_keys(other))}
    pairs = [(i, theirs[key]) for i, key in enumerate(document_keys(one)) if key in theirs]
    mine, yours = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    return one.take(mine), other.take(yours)


def document_keys(losses: DocumentLosses) -> Iterator[tuple[str, int, int]]:
    """What tells each document from the others of its source: its name, its bytes, and which it is of those alike in both."""
    seen: dict[tuple[str, int], int] = {}
    for name, size in zip(losses.names, losses.bytes.tolist(), strict=True):
        seen[name, size] = seen.get((name, size), 0) + 1
        yield name, size, seen[name, size]


def rows_at_once(length: int, vocabulary: int, mesh: Mesh) -> int:
    """How many rows of this length are scored together: a multiple of the ways that the mesh cuts a batch."""
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    return ways * max(1, min(BATCH_TOKENS // length, BATCH_LOGITS // (length * vocabulary)))
