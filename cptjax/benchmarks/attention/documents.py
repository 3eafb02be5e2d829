"""Packed rows to compare attention on, and how much of a row's causal square their documents leave to do."""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Int

from cptjax.benchmarks.bpe import train_bpe
from cptjax.data.packing import best_fit
from cptjax.data.sources import documents, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.files import read_json, write_file

_VOCABULARY, _SAMPLE_BYTES = 32000, 4e6
_BATCH = 256  # documents that are tokenized at a time
Rows = Int[np.ndarray, "rows length"]


@dataclasses.dataclass(frozen=True)
class Areas:
    """Shares of what causal rows of one document would take, means over rows.

    Attributes:
        elements: pairs of tokens that see each other, of those before or at each other.
        blocks: blocks of the size at hand with such a pair in them, of those before or at the diagonal.
        visited: pairs in these blocks (whole blocks), of the pairs of tokens before or at each other.
    """

    elements: float
    blocks: float
    visited: float


def areas(segment_ids: Rows, block: int = 512) -> Areas:
    """By counting: every block of every row is looked at, whatever a plan says. Padding is a document like any other.

    A row must be whole blocks.
    """
    rows, length = segment_ids.shape
    across = length // block
    elements = visited = 0
    for row in segment_ids:
        begins = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
        ends = np.append(begins[1:], length)
        sizes = ends - begins
        elements += int(np.sum(sizes * (sizes + 1) // 2))
        first = np.repeat(begins, sizes)  # each query's first key; its last is itself
        # Queries of a block see from the first key of its first query to themselves, without a gap.
        visited += int(np.sum(np.arange(across) - first[::block] // block + 1))
    causal = rows * length * (length + 1) // 2
    return Areas(elements / causal, visited / (rows * across * (across + 1) // 2), visited * block * block / causal)


def equal_documents(length: int, documents: int) -> Rows:
    """One row of so many documents, each as long as the others."""
    if length % documents:
        raise ConfigurationError(f"{length} tokens are not {documents} equal documents.")
    return np.repeat(np.arange(1, documents + 1, dtype=np.int32), length // documents)[None]


def packed_rows(lengths: Sequence[int], length: int, most: int) -> Rows:
    """At most so many rows, taken evenly from all that best-fit packing makes of documents with these positions."""
    packed = best_fit(np.asarray(lengths, np.int64), length)
    chosen = packed[:: max(1, len(packed) // most)][:most]
    rows = np.zeros((len(chosen), length), np.int32)
    for row, pieces in zip(rows, chosen, strict=True):
        sizes = [size for _, _, size in pieces]
        row[: sum(sizes)] = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    return rows


def document_lengths(text: str, folder: epath.PathLike) -> list[int]:
    """Positions of each document of a JSON Lines file, by a byte-level BPE of 32,000 tokens trained on 4 MB of it.

    Counted once and kept in `folder`. A document has as many positions as tokens, and its end.

    Raises:
        CptjaxError: there is no such text.
    """
    source = find_source("text", text)
    kept = epath.Path(folder) / f"{name_of(text)}.json"
    told = {"text": text, "vocabulary": _VOCABULARY, "sample_bytes": _SAMPLE_BYTES}
    if kept.exists() and (found := read_json(kept)).pop("lengths_told", None) == told:
        return found["lengths"]
    read = list(documents(source))
    stride = max(1, round(sum(document.size for document in read) / _SAMPLE_BYTES))
    with tempfile.TemporaryDirectory(prefix="cptjax-benchmark-") as where:
        sample = [document.text for document in read[::stride]]
        tokenizer = open_tokenizer(train_bpe(sample, _VOCABULARY, Path(where) / "tokenizer"))
        lengths: list[int] = []
        for start in range(0, len(read), _BATCH):
            batch = [document.text for document in read[start : start + _BATCH]]
            lengths += [len(ids) + 1 for ids in tokenizer.encode_batch(batch)]
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_file(kept, json.dumps({"lengths_told": told, "lengths": lengths}) + "\n")
    return lengths


def name_of(text: str) -> str:
    """What a text is called: its file's name, without what says that it is one."""
    return Path(text).name.split(".")[0]
