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
from cptjax.data.records import Place
from cptjax.data.sources import Source, placed_documents
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
            yield np.concatenate([[tokenizer.start], ids, [tokenizer.eos]]).astype(np.uint32)


def tokenize_chunk(source: Source, tokenizer: Tokenizer, chunk: Chunk, path: Path) -> tuple[int, int]:
    """Writes a chunk's token file; returns its documents and its tokens (targets).

    Raises:
        CptjaxError: the text is not what it was when it was cut into chunks.
    """
    read = (document for _, document in placed_documents(source, tokenizer, start=chunk.place))
    sequences = list(token_sequences(itertools.islice(read, chunk.documents), tokenizer))
    if len(sequences) != chunk.documents:
        raise CptjaxError(f"the files of source {source.name!r} changed while they were read.\n  Run again.")
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
        opened = open_tokenizer(tokenizer)
        for number in missing:
            report(*tokenize_chunk(source, opened, chunks[number], folder / chunk_name(number)))
        return
    with concurrent.futures.ProcessPoolExecutor(
        min(processes, len(missing)),
        multiprocessing.get_context("spawn"),  # a fork of a process with threads may stand still
        initializer=_begin_worker,
        initargs=(tokenizer,),
    ) as pool:
        done = [pool.submit(_work, source, chunks[number], str(folder / chunk_name(number))) for number in missing]
        try:
            for each in concurrent.futures.as_completed(done):
                report(*each.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_tokenizer: Tokenizer | None = None  # a worker's own


def _begin_worker(tokenizer: str) -> None:
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core already
    end_with_parent(os.getppid())
    _tokenizer = open_tokenizer(tokenizer)


def _work(source: Source, chunk: Chunk, path: str) -> tuple[int, int]:
    return tokenize_chunk(source, _tokenizer, chunk, Path(path))


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
