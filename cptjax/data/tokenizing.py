"""Text becomes tokens, chunk by chunk: each chunk of a source's documents becomes one token file, whichever process does it.

A chunk that is done is a file that is there, so that work that was interrupted goes on where it stopped, and processes of this
machine, or workers of Apache Beam, share it with nothing between them but a folder.
"""

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cptjax.data.document import Document
from cptjax.data.readers import Record
from cptjax.data.records import BadRecords, Place, documents_of
from cptjax.data.sources import Source, placed_documents, records_of_files
from cptjax.data.token_files import write_tokens
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.errors import CptjaxError
from cptjax.processes import end_with_parent

CHUNK_BYTES = 4 << 20  # of text
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


class ChunkReader:
    """The documents of a source's chunks. Chunks in ascending order are reached by reading on from the one before.

    A compressed file, or one of lines, has no other way to a place than through all that comes before it.
    """

    def __init__(self, source: Source, tokenizer: Tokenizer):
        self.source, self.tokenizer = source, tokenizer
        self._records: Iterator[tuple[Place, Record]] = iter(())
        self._read: Place | None = None  # the last record's place

    def documents(self, chunk: Chunk) -> Iterator[Document]:
        """The chunk's documents; fewer where the text has become less."""
        if self.source.files and not self.source.megatron:
            if self._read is None or chunk.place <= self._read:
                self._records = records_of_files(self.source.files, chunk.place)
            found = documents_of(self._from(chunk.place), self.source.settings, BadRecords(), self.source.name)
        else:
            found = placed_documents(self.source, self.tokenizer, start=chunk.place)
        return (document for _, document in itertools.islice(found, chunk.documents))

    def _from(self, place: Place) -> Iterator[tuple[Place, Record]]:
        for at, record in self._records:
            self._read = at
            if at >= place:
                yield at, record


def tokenize_chunk(reader: ChunkReader, chunk: Chunk, path: Path) -> tuple[int, int]:
    """Writes a chunk's token file; returns its documents and its tokens (targets).

    Raises:
        CptjaxError: the text is not what it was when it was cut into chunks.
    """
    sequences = list(token_sequences(reader.documents(chunk), reader.tokenizer))
    if len(sequences) != chunk.documents:
        raise CptjaxError(f"the files of source {reader.source.name!r} changed while they were read.\n  Run again.")
    write_tokens(path, sequences)
    return len(sequences), sum(len(ids) - 1 for ids in sequences)


def tokenize_chunks(
    source: Source,
    tokenizer: str,
    chunks: Sequence[Chunk],
    folder: Path,
    processes: int,
    report: Callable[[int, int], None],
) -> None:
    """Makes the token files that are missing in `folder`, `processes` at a time.

    report: hears of the documents and tokens of each chunk that is done.
    """
    missing = [number for number in range(len(chunks)) if not (folder / chunk_name(number)).exists()]
    if processes == 1 or len(missing) < 2:
        reader = ChunkReader(source, open_tokenizer(tokenizer))
        for number in missing:
            report(*tokenize_chunk(reader, chunks[number], folder / chunk_name(number)))
        return
    with concurrent.futures.ProcessPoolExecutor(
        min(processes, len(missing)),
        multiprocessing.get_context("spawn"),  # a fork of a process with threads may stand still
        initializer=_begin_worker,
        initargs=(source, tokenizer),
    ) as pool:
        done = [pool.submit(_work, chunks[number], str(folder / chunk_name(number))) for number in missing]
        try:
            for each in concurrent.futures.as_completed(done):
                report(*each.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_reader: ChunkReader | None = None  # a worker's own


def _begin_worker(source: Source, tokenizer: str) -> None:
    global _reader
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core already
    end_with_parent(os.getppid())
    _reader = ChunkReader(source, open_tokenizer(tokenizer))


def _work(chunk: Chunk, path: str) -> tuple[int, int]:
    return tokenize_chunk(_reader, chunk, Path(path))


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
