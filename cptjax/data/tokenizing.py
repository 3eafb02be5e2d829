"""Text becomes tokens, chunk by chunk: each chunk of a source's documents becomes a token file and a file of signs (signs.py).

A chunk that is done is two files that are there, so that work that was interrupted goes on where it stopped, and processes of
this machine, or workers of Apache Beam, share it with nothing between them but a folder.
"""

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from etils import epath

from cptjax.data.document import Document
from cptjax.data.readers import Record
from cptjax.data.records import BadRecords, Place, documents_of
from cptjax.data.signs import Asked, Signs, signs_name, write_signs
from cptjax.data.sources import Source, placed_documents, records_of_files
from cptjax.data.token_files import write_tokens
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.errors import CptjaxError
from cptjax.processes import end_with_parent

CHUNK_BYTES = 2 << 20  # of text
_TOGETHER = 1 << 18  # characters that are encoded in one call


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Documents one after another: the ordinal and the place of the first, and how many."""

    first: int
    documents: int
    place: Place


def chunk_name(number: int) -> str:
    """The token file of a chunk."""
    return f"tokens-{number:05d}"


def is_done(number: int, folder: epath.Path | Path) -> bool:
    """Whether the files of a chunk are there."""
    return (folder / signs_name(number)).exists() and (folder / chunk_name(number)).exists()


@dataclasses.dataclass(frozen=True)
class Work:
    """What is done with every chunk of a source: `tokenizer` is its folder or file."""

    source: Source
    tokenizer: str
    asked: Asked = Asked()


def token_sequences(documents: Iterator[Document], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """`[start] + ids + [EOS]` of each document, uint32."""
    for batch in _batches(documents):
        texts = [document.text for document in batch if document.tokens is None]
        encoded = iter(tokenizer.encode_batch(texts)) if texts else iter(())
        for document in batch:
            ids = next(encoded) if document.tokens is None else document.tokens
            sequence = np.empty(len(ids) + 2, np.uint32)
            sequence[0], sequence[1:-1], sequence[-1] = tokenizer.start, ids, tokenizer.eos
            yield sequence


class ChunkWorker:
    """Does the chunks of a source. Those in ascending order are reached by reading on from the one before.

    A compressed file, or one of lines, has no other way to a place than through all that comes before it.
    """

    def __init__(self, work: Work):
        self.source, self.tokenizer, self._signs = work.source, open_tokenizer(work.tokenizer), Signs(work.asked)
        self._records: Iterator[tuple[Place, Record]] = iter(())
        self._read: Place | None = None  # the last record's place
        self._placed: Iterator[tuple[Place, Document]] = iter(())
        self._last: Place | None = None  # the last document's

    def documents(self, chunk: Chunk) -> Iterator[Document]:
        """The chunk's documents; fewer where the text has become less."""
        if self.source.files and not self.source.megatron:
            if self._read is None or chunk.place <= self._read:
                self._records = records_of_files(self.source.files, chunk.place)
            found = documents_of(self._from(chunk.place), self.source.settings, BadRecords(), self.source.name)
        elif self.source.megatron:
            found = placed_documents(self.source, self.tokenizer, start=chunk.place)
        else:
            if self._last is None or chunk.place <= self._last:
                self._placed = placed_documents(self.source, self.tokenizer, start=chunk.place)
            found = self._from_document(chunk.place)
        return (document for _, document in itertools.islice(found, chunk.documents))

    def _from_document(self, place: Place) -> Iterator[tuple[Place, Document]]:
        for at, document in self._placed:
            self._last = at
            if at >= place:
                yield at, document

    def _from(self, place: Place) -> Iterator[tuple[Place, Record]]:
        for at, record in self._records:
            self._read = at
            if at >= place:
                yield at, record

    def do(self, number: int, chunk: Chunk, folder: epath.Path) -> tuple[int, int]:
        """Writes the files of chunk `number`; returns its documents and its tokens (targets).

        Raises:
            CptjaxError: the text is not what it was when it was cut into chunks.
        """
        documents = list(self.documents(chunk))
        if len(documents) != chunk.documents:
            raise CptjaxError(f"the files of source {self.source.name!r} changed while they were read.\n  Run again.")
        sequences = list(token_sequences(iter(documents), self.tokenizer))
        write_signs(folder / signs_name(number), [self._signs.of(document.text) for document in documents])
        write_tokens(folder / chunk_name(number), sequences)  # last: it says that the chunk is done
        return len(sequences), sum(len(ids) - 1 for ids in sequences)


def tokenize_chunks(
    work: Work,
    chunks: Sequence[Chunk],
    folder: Path,
    processes: int,
    report: Callable[[int, int], None],
) -> None:
    """Makes the files that are missing in `folder`, `processes` chunks at a time.

    report: hears of the documents and tokens of each chunk that is done.
    """
    missing = [number for number in range(len(chunks)) if not is_done(number, folder)]
    if processes == 1 or len(missing) < 2:
        worker = ChunkWorker(work)
        for number in missing:
            report(*worker.do(number, chunks[number], folder))
        return
    with concurrent.futures.ProcessPoolExecutor(
        min(processes, len(missing)),
        multiprocessing.get_context("spawn"),  # a fork of a process with threads may stand still
        initializer=_begin_worker,
        initargs=(work,),
    ) as pool:
        done = [pool.submit(_work, number, chunks[number], folder) for number in missing]
        try:
            for each in concurrent.futures.as_completed(done):
                report(*each.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_worker: ChunkWorker | None = None  # a process's own


def _begin_worker(work: Work) -> None:
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core already
    end_with_parent(os.getppid())
    _worker = ChunkWorker(work)


def _work(number: int, chunk: Chunk, folder: Path) -> tuple[int, int]:
    return _worker.do(number, chunk, folder)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents in their order, of about `_TOGETHER` characters together."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
