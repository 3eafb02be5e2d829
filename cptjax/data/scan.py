"""A source read before any row is made: what is malformed is found first, then the split is decided.

`survey` reads it all and cuts it into chunks. What takes long (tokens, signs) is done with the chunks by whoever has cores, and
`decide` makes the split of it.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cptjax.data.document import Document
from cptjax.data.records import BadRecords, Place
from cptjax.data.signs import Asked, Sign, Signs
from cptjax.data.sources import Source, placed_documents
from cptjax.data.splits import SplitSettings, candidates, held_out, places
from cptjax.data.tokenizer import Tokenizer
from cptjax.data.tokenizing import CHUNK_BYTES, Chunk
from cptjax.errors import ConfigurationError
from cptjax.files import write_file
from cptjax.selection.shingles import ShingleStore

_SURVEY = "survey.jsonl"
_FIRST_SECONDS = 5.0  # what is done sooner is not told of
_REPORT_SECONDS = 30.0  # between lines after the first

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Survey:
    """What reading a source tells: a name, a size and metadata for each document.

    Attributes:
        chunks: the documents in pieces of some megabytes, which are tokenized each by itself.
        bad: how many records were passed over, and what was wrong with the first.
    """

    names: list[str]
    sizes: list[int]
    metadata: list[Mapping]
    chunks: list[Chunk]
    bad: Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Scan(Survey):
    """A survey, and each document's place in the split.

    Attributes:
        grouping: how many groups of near-duplicates there are, in groups of more than one how many documents, and 1 in how
            many shingles they were found by (1: all of them).
        dropped: the documents that are in no split, for an exam's items are in them; contamination: how many, and how many
            items.
    """

    held_out: np.ndarray
    grouping: Mapping[str, int]
    dropped: np.ndarray
    contamination: Mapping[str, int]

    def members(self, split: str) -> np.ndarray:
        """The ordinals of the documents of "train" or "validation"."""
        return np.flatnonzero((self.held_out == (split == "validation")) & ~self.dropped)


def survey(source: Source, tokenizer: Tokenizer, report: Report = lambda line: None) -> Survey:
    """Reads the source, so that a malformed record anywhere is found first. `report` gets a line now and then.

    Raises:
        ConfigurationError: a malformed record, or no document.
    """
    names, sizes, metadata = [], [], []

    def told(read: int, size: int) -> None:
        report(f"  {source.name}: {read:,} documents read, {size / 1e6:,.1f} MB")

    bad, chunks, filled = BadRecords(), [], CHUNK_BYTES
    for place, document in _told(placed_documents(source, tokenizer, bad), told):
        if filled >= CHUNK_BYTES:
            chunks.append(Chunk(len(names), 0, place))
            filled = 0
        chunks[-1] = dataclasses.replace(chunks[-1], documents=chunks[-1].documents + 1)
        filled += document.size
        names.append(document.name)
        sizes.append(document.size)
        metadata.append(document.metadata)
    if not names:
        raise ConfigurationError(
            f"source {source.name!r} is empty: there is no document with text in {source.where}.\n"
            "  A blend cannot read from it; leave it out, or give other files."
        )
    return Survey(names, sizes, metadata, chunks, {"records": bad.count, "first": bad.first})


def asked_for(split: SplitSettings, exams: Sequence[str] = ()) -> Asked:
    """What has to be known of every document to decide the split."""
    return Asked(split.near_duplicates is not None and split.fraction > 0, tuple(exams))


def decide(read: Survey, signs: Iterable[Sign], split: SplitSettings, tokens: Callable[[], np.ndarray]) -> Scan:
    """The split of what was surveyed.

    Args:
        signs: of every document, in order (`signs.Signs`, for what `asked_for` says).
        tokens: gives the tokens of every document (int64; the documents in line to be held out are all that matter).
    """
    store = ShingleStore() if asked_for(split).shingles else None
    texts, dropped, hit = [], [], set()
    for sign in signs:
        texts.append(sign.same)
        dropped.append(len(sign.items) > 0)
        hit.update(sign.items.tolist())
        if store is not None:
            store.add(sign.shingles)
    place = places(np.array(texts, np.uint64), store.sets if store else None, split.near_duplicates)
    counts = tokens() if candidates(place, split).any() else np.zeros(len(place), np.int64)
    _, size = np.unique(place, return_counts=True)
    return Scan(
        **{field.name: getattr(read, field.name) for field in dataclasses.fields(Survey)},
        held_out=held_out(place, counts, split),
        grouping={
            "groups": len(size),
            "documents_in_groups": int(size[size > 1].sum()),
            "one_shingle_in": store.modulus if store else 0,
        },
        dropped=np.array(dropped, bool),
        contamination={"documents": sum(dropped), "items": len(hit)},
    )


def scan(source: Source, tokenizer: Tokenizer, split: SplitSettings, report: Report = lambda line: None) -> Scan:
    """The split of a source that no rows are made of: all in this process, nothing left on disk."""
    read = survey(source, tokenizer, report)
    signs = Signs(asked_for(split))

    def texts() -> Iterator[Document]:
        every = (document for _, document in placed_documents(source, tokenizer))
        return itertools.islice(every, len(read.names))

    def tokens() -> np.ndarray:
        ids = (
            document.tokens if document.tokens is not None else tokenizer.encode(document.text) for document in texts()
        )
        return np.array([len(each) + 1 for each in ids])

    return decide(read, (signs.of(document.text) for document in texts()), split, tokens)


def save_survey(read: Survey, folder: Path) -> None:
    """Writes the survey into `folder`, whole or not at all: work that is interrupted does not read everything again."""
    lines = (json.dumps(each, ensure_ascii=False) for each in zip(read.names, read.sizes, read.metadata, strict=True))
    chunks = [[chunk.first, chunk.documents, *chunk.place] for chunk in read.chunks]
    content = {"chunks": chunks, "bad": dict(read.bad)}
    write_file(folder / _SURVEY, "\n".join([json.dumps(content), *lines]) + "\n")


def load_survey(folder: Path) -> Survey | None:
    """What `save_survey` wrote; None where it wrote nothing."""
    if not (folder / _SURVEY).exists():
        return None
    with (folder / _SURVEY).open(encoding="utf-8") as lines:
        content = json.loads(next(lines))
        documents = [json.loads(line) for line in lines]
    names, sizes, metadata = (list(column) for column in zip(*documents, strict=True))
    chunks = [Chunk(first, count, Place(file, record)) for first, count, file, record in content["chunks"]]
    return Survey(names, sizes, metadata, chunks, content["bad"])


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
