"""A source read before any row is made: what is malformed is found first, and the split is decided."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from cptjax.data.document import Document
from cptjax.data.sources import Source, documents
from cptjax.data.splits import SplitSettings, candidates, held_out, places, same_text
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.selection.shingles import ShingleStore, word_shingles

_FIRST_SECONDS = 5.0  # what is done sooner is not told of
_REPORT_SECONDS = 30.0  # between lines after the first


@dataclasses.dataclass(frozen=True)
class Scan:
    """What reading a source tells: a name, a size, metadata and a place in the split for each document.

    grouping: how many groups of near-duplicates there are, in groups of more than one how many documents, and 1 in how
    many shingles they were found by (1: all of them).
    """

    names: list[str]
    sizes: list[int]
    metadata: list[Mapping]
    held_out: np.ndarray
    grouping: Mapping[str, int]


def scan(
    source: Source, tokenizer: Tokenizer, split: SplitSettings, report: Callable[[str], None] = lambda line: None
) -> Scan:
    """Reads the source before any row is made, so that a malformed line anywhere is found first.

    A second reading counts the tokens of the documents that may be held out. `report` gets a line now and then.
    """
    names, sizes, metadata, texts = [], [], [], []
    store = ShingleStore() if split.near_duplicates is not None and split.fraction > 0 else None
    began = time.monotonic()

    def scanned(read: int, size: int) -> None:
        report(f"  {source.name}: {read:,} documents scanned, {size / 1e6:,.1f} MB")

    def counted_so_far(read: int, size: int) -> None:
        report(f"  {source.name}: counting tokens to hold out, {read:,} of {len(names):,} documents seen")

    for document in _told(documents(source), scanned):
        names.append(document.name)
        sizes.append(document.size)
        metadata.append(document.metadata)
        texts.append(same_text(document.text))
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
        for ordinal, document in enumerate(_told(documents(source), counted_so_far)):
            if ordinal < len(counted) and counted[ordinal]:  # a file that grew meanwhile is found out at the end
                tokens[ordinal] = len(tokenizer.encode(document.text)) + 1
    _, size = np.unique(place, return_counts=True)
    grouping = {
        "groups": len(size),
        "documents_in_groups": int(size[size > 1].sum()),
        "one_shingle_in": store.modulus if store else 0,
    }
    return Scan(names, sizes, metadata, held_out(place, tokens, split), grouping)


def _told(read: Iterator[Document], tell: Callable[[int, int], None]) -> Iterator[Document]:
    """The documents; now and then `tell` hears how many there have been, and their bytes."""
    begin = told = time.monotonic()
    size = 0
    for number, document in enumerate(read, start=1):
        yield document
        size += document.size
        if time.monotonic() - told > (_REPORT_SECONDS if told > begin else _FIRST_SECONDS):
            told = time.monotonic()
            tell(number, size)
