"""Held-out documents in overlapping windows: each token with a good deal of its document before it, however long that is.

A window holds `length` positions and the next begins `stride` further on. The first counts whole, of each other one the
targets that no window before it had: these have at least length - stride tokens of context. At stride = length the windows are
the pieces that packing makes of a document that begins a row.
"""

import itertools
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from cptjax.data.packing import CONCATENATE
from cptjax.data.rows import RowReader
from cptjax.errors import ConfigurationError
from cptjax.evaluation.documents import DocumentLosses, rows_at_once
from cptjax.evaluation.loss import build_token_nats, everywhere
from cptjax.evaluation.score import sequence_batch
from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows
from cptjax.watching import Watch, unwatched

_ROWS_READ = 256  # at a time


def strided_losses(
    params: Params,
    config: DecoderConfig,
    numerics: Numerics,
    reader: RowReader,
    mesh: Mesh,
    stride: int,
    watch: Watch = unwatched,
    skip: int = 0,
) -> DocumentLosses:
    """`documents.document_losses`, in windows of the rows' length. Memory is bounded by a batch and the longest document.

    Args:
        skip: targets at the beginning of each document that do not count.

    Raises:
        ConfigurationError: a stride below 1 or above the rows' length; rows whose documents are not one after another.
    """
    length = reader.manifest.sequence_length
    if not 1 <= stride <= length:
        raise ConfigurationError(
            f"STRIDE = {stride}; windows are as long as rows, {length} tokens, and begin 1 to {length} tokens after another."
        )
    documents = reader.documents(range(reader.manifest.documents))
    nats, tokens = np.zeros(len(documents)), np.zeros(len(documents))
    score, rows = build_token_nats(config, numerics), rows_at_once(length, config.vocabulary, mesh)
    cuts = (
        (ordinal, window, weights)
        for ordinal, document, weight in whole_documents(reader)
        for window, weights in windows(document, np.where(np.arange(len(weight)) < skip, 0, weight), length, stride)
    )
    batches = iter(lambda: list(itertools.islice(cuts, rows)), [])
    with jax.set_mesh(mesh):
        for part in watch(batches, None, f"scoring {reader.manifest.source} in windows, batches"):
            batch = sequence_batch([window for _, window, _ in part], rows, length)
            batch["weights"] = np.zeros((rows, length), np.float32)
            for row, (_, _, weights) in enumerate(part):
                batch["weights"][row, : len(weights)] = weights
            placed = place_rows(lambda wanted, batch=batch: {k: v[wanted] for k, v in batch.items()}, rows, mesh)
            scored = np.asarray(everywhere(score(params, placed)), np.float64)[: len(part)].sum(axis=1)
            ordinals = [ordinal for ordinal, _, _ in part]
            np.add.at(nats, ordinals, scored)
            np.add.at(tokens, ordinals, batch["weights"][: len(part)].sum(axis=1, dtype=np.float64))
    names = tuple(document["id"] for document in documents)
    return DocumentLosses(names, nats, tokens, np.array([document["bytes"] for document in documents], np.int64))


def whole_documents(
    reader: RowReader,
) -> Iterator[tuple[int, Int[np.ndarray, " tokens"], Float[np.ndarray, " targets"]]]:
    """Each document that rows were made of: its ordinal, its tokens, and the weight of each but the first.

    Raises:
        ConfigurationError: rows whose documents are not one after another.
    """
    if reader.manifest.packing != CONCATENATE:
        raise ConfigurationError(
            f"{reader.folder} was packed by {reader.manifest.packing!r}, which does not keep a document's pieces in order.\n"
            f"  Windows (STRIDE) need rows of {CONCATENATE!r}."
        )
    now, tokens, weights = None, [], []
    for first in range(0, len(reader), _ROWS_READ):
        for row in reader.pieces(range(first, min(first + _ROWS_READ, len(reader)))):
            at, begin = 0, 0
            for ordinal, length in zip(row.ordinals.tolist(), row.lengths.tolist(), strict=True):
                if ordinal != now:
                    if now is not None:
                        yield now, np.concatenate(tokens), np.concatenate(weights)
                    now, tokens, weights = ordinal, [row.stream[at : at + 1]], []
                tokens.append(
                    row.stream[at + 1 : at + 1 + length]
                )  # a piece begins with the last token of the one before
                ones = np.ones(length, np.float32)
                weights.append(ones if row.weights is None else row.weights[begin : begin + length])
                at, begin = at + length + 1, begin + length
    if now is not None:
        yield now, np.concatenate(tokens), np.concatenate(weights)


def windows(
    tokens: Int[np.ndarray, " tokens"], weights: Float[np.ndarray, " targets"], length: int, stride: int
) -> Iterator[tuple[Int[np.ndarray, " window"], Float[np.ndarray, " positions"]]]:
    """A document's windows of at most length + 1 tokens, and the weights of their targets: 0 for those that counted before."""
    counted, last = 0, len(tokens) - 1
    for begin in range(0, last, stride):
        end = min(begin + length, last)
        fresh = weights[begin:end].copy()
        fresh[: counted - begin] = 0
        yield tokens[begin : end + 1], fresh
        counted = end
        if end == last:
            return
