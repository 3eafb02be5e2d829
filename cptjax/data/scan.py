"""A source read before any row is made: what is malformed is found first, and the split is decided."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cptjax.data.contamination import Exams
from cptjax.data.document import Document
from cptjax.data.records import BadRecords, Place
from cptjax.data.sources import Source, placed_documents
from cptjax.data.splits import SplitSettings, candidates, held_out, places, same_text
from cptjax.data.tokenizer import Tokenizer
from cptjax.data.tokenizing import CHUNK_BYTES, Chunk
from cptjax.errors import ConfigurationError
from cptjax.files import write_file
from cptjax.selection.shingles import ShingleStore, word_shingles

_SCAN = "scan.jsonl"
_FIRST_SECONDS = 5.0  # what is done sooner is not told of
_REPORT_SECONDS = 30.0  # between lines after the first


@dataclasses.dataclass(frozen=True)
class Scan:
    """What reading a source tells: a name, a size, metadata and a place in the split for each document.

    grouping: how many groups of near-duplicates there are, in groups of more than one how many documents, and 1 in how
    many shingles they were found by (1: all of them).
    chunks: the documents in pieces of some megabytes, which are tokenized each by itself.
    bad: how many records were passed over, and what was wrong with the first.
    dropped: the documents that are in no split, for an exam's items are in them; contamination: how many, and how many items.
    """

    names: list[str]
    sizes: list[int]
    metadata: list[Mapping]
    held_out: np.ndarray
    grouping: Mapping[str, int]
    chunks: list[Chunk]
    bad: Mapping[str, object]
    dropped: np.ndarray
    contamination: Mapping[str, int]

    def members(self, split: str) -> np.ndarray:
        """The ordinals of the documents of "train" or "validation"."""
        return np.flatnonzero((self.held_out == (split == "validation")) & ~self.dropped)


def scan(
    source: Source,
    tokenizer: Tokenizer,
    split: SplitSettings,
    report: Callable[[str], None] = lambda line: None,
    exams: Exams | None = None,
) -> Scan:
    """Reads the source before any row is made, so that a malformed line anywhere is found first.

    A second reading counts the tokens of the documents that may be held out. `report` gets a line now and then. Documents
    that hold items of `exams` are dropped.
    """
    names, sizes, metadata, texts = [], [], [], []
    store = ShingleStore() if split.near_duplicates is not None and split.fraction > 0 else None
    began = time.monotonic()

    def scanned(read: int, size: int) -> None:
        report(f"  {source.name}: {read:,} documents scanned, {size / 1e6:,.1f} MB")

    def counted_so_far(read: int, size: int) -> None:
        report(f"  {source.name}: counting tokens to hold out, {read:,} of {len(names):,} documents seen")

    bad, chunks, filled = BadRecords(), [], CHUNK_BYTES
    dropped, hit = [], set()
    for place, document in _told(placed_documents(source, tokenizer, bad), scanned):
        if filled >= CHUNK_BYTES:
            chunks.append(Chunk(len(names), 0, place))
            filled = 0
        chunks[-1] = dataclasses.replace(chunks[-1], documents=chunks[-1].documents + 1)
        filled += document.size
        names.append(document.name)
        sizes.append(document.size)
        metadata.append(document.metadata)
        texts.append(same_text(document.text))
        items = exams.found_in(document.text) if exams is not None else ()
        dropped.append(len(items) > 0)
        hit.update(int(item) for item in items)
        if store is not None:
            store.add(word_shingles(document.text))
    if not names:
        raise ConfigurationError(
            f"source {source.name!r} is empty: there is no document with text in {source.where}.\n"
            "  A blend cannot read from it; leave it out, or give other files."
        )
    if time.monotonic() - began > _FIRST_SECONDS and store is not None:
        report(f"  {source.name}: grouping near-duplicates among {len(names):,} documents")
    place = places(np.array(texts, np.uint64), store.sets if store else None, split.near_duplicates)
    tokens = np.zeros(len(names), np.int64)
    counted = candidates(place, split)
    if counted.any():
        for ordinal, (_, document) in enumerate(_told(placed_documents(source, tokenizer), counted_so_far)):
            if ordinal < len(counted) and counted[ordinal]:  # a file that grew meanwhile is found out at the end
                known = document.tokens
                tokens[ordinal] = len(tokenizer.encode(document.text) if known is None else known) + 1
    _, size = np.unique(place, return_counts=True)
    grouping = {
        "groups": len(size),
        "documents_in_groups": int(size[size > 1].sum()),
        "one_shingle_in": store.modulus if store else 0,
    }
    found = {"records": bad.count, "first": bad.first}
    contamination = {"documents": sum(dropped), "items": len(hit)}
    held = held_out(place, tokens, split)
    return Scan(names, sizes, metadata, held, grouping, chunks, found, np.array(dropped, bool), contamination)


def save_scan(scan: Scan, folder: Path) -> None:
    """Writes the scan into `folder`, whole or not at all: work that is interrupted does not read everything again."""
    lines = (json.dumps(each, ensure_ascii=False) for each in zip(scan.names, scan.sizes, scan.metadata, strict=True))
    content = {
        "held_out": np.flatnonzero(scan.held_out).tolist(),
        "grouping": dict(scan.grouping),
        "chunks": [[chunk.first, chunk.documents, *chunk.place] for chunk in scan.chunks],
        "bad": dict(scan.bad),
        "dropped": np.flatnonzero(scan.dropped).tolist(),
        "contamination": dict(scan.contamination),
    }
    write_file(folder / _SCAN, "\n".join([json.dumps(content), *lines]) + "\n")


def load_scan(folder: Path) -> Scan | None:
    """What `save_scan` wrote; None where it wrote nothing."""
    if not (folder / _SCAN).exists():
        return None
    with (folder / _SCAN).open(encoding="utf-8") as lines:
        content = json.loads(next(lines))
        documents = [json.loads(line) for line in lines]
    names, sizes, metadata = (list(column) for column in zip(*documents, strict=True))
    held_out, dropped = np.zeros((2, len(names)), bool)
    held_out[content["held_out"]] = True
    dropped[content["dropped"]] = True
    chunks = [Chunk(first, count, Place(file, record)) for first, count, file, record in content["chunks"]]
    return Scan(
        names, sizes, metadata, held_out, content["grouping"], chunks, content["bad"], dropped, content["contamination"]
    )


def _told(read: Iterator[tuple[Place, Document]], tell: Callable[[int, int], None]) -> Iterator[tuple[Place, Document]]:
    """The documents; now and then `tell` hears how many there have been, and their bytes."""
    begin = told = time.monotonic()
    size = 0
    for number, (place, document) in enumerate(read, start=1):
        yield place, document
        size += document.size
        if time.monotonic() - told > (_REPORT_SECONDS if told > begin else _FIRST_SECONDS):
            told = time.monotonic()
            tell(number, size)
