"""The records of a file, whatever its kind: JSON lines and plain text (also .gz and .zst), Parquet and Arrow.

A record is read before it is judged: what is wrong with one is told where it becomes a document (records.py), so that a
malformed record can be passed over and the file read on. What is wrong with a whole file is an error here.
"""

import contextlib
import dataclasses
import gzip
import importlib
import io
import zlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import IO

from etils import epath

from cptjax.errors import ConfigurationError, CptjaxError

JSONL = (".jsonl", ".json")  # .json as C4 and Dolma are published: lines too
TEXT = (".txt", ".md", ".rst")
TABLES = (".parquet", ".arrow")
_COMPRESSED = ("", ".gz", ".zst")
LINES = tuple(kind + packed for kind in JSONL for packed in _COMPRESSED)
SUFFIXES = (*(kind + packed for kind in JSONL + TEXT for packed in _COMPRESSED), *TABLES)
_TABLE_ROWS = 1024  # read at a time
_ZSTD_BYTES = 1 << 18
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


@dataclasses.dataclass(frozen=True)
class Record:
    """What a file holds at one place, not yet judged.

    where: the file and the line, row or nothing, for people; name: what a document without an id is called.
    content: fields; or the bytes of a JSON line; or, of a plain text, the bytes of the text (`is_text`).
    """

    where: str
    name: str
    content: Mapping[str, object] | bytes
    is_text: bool = False


def file_records(file: str, name: str, first: int = 0) -> Iterator[Record]:
    """The records of `file` from the one numbered `first` (from 0) on; blank lines are none.

    Args:
        name: what the file is called in the names of its documents.

    Raises:
        CptjaxError: the file is damaged: it cannot be read to its end.
        ConfigurationError: its kind needs a package that is not installed.
    """
    try:
        if file.endswith(TABLES):
            yield from _table_records(file, name, first)
            return
        with opened(file) as stream:
            if _kind(file) in TEXT:
                if not first:
                    yield Record(file, name, stream.read(), is_text=True)
                return
            for number, line in enumerate(stream, 1):
                if line.strip():
                    if first:
                        first -= 1
                        continue
                    yield Record(f"{file}, line {number}", f"{name}:{number}", line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CptjaxError(
            f"{file} is damaged: {error}.\n  Its gzip stream cannot be read to the end; fetch it again."
        ) from error


@contextlib.contextmanager
def opened(file: str) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed."""
    if file.endswith(_COMPRESSED[1:]) and not epath.Path(file).stat().length:
        raise CptjaxError(
            f"{file} is damaged: it has no bytes, and the smallest compressed file has some.\n  Fetch it again."
        )
    with epath.Path(file).open("rb") as raw:
        if file.endswith(".gz"):
            with gzip.open(raw) as stream:
                yield stream
        elif file.endswith(".zst"):
            yield io.BufferedReader(_ZstdFrames(raw, file))
        else:
            yield raw


class _ZstdFrames(io.RawIOBase):
    """The frames of a zstd file one after another. zstandard's own reader ends a file that was cut off without a word."""

    def __init__(self, raw: IO[bytes], file: str):
        self._zstandard = _needs("zstandard", file)
        self._raw, self._file = raw, file
        self._frame, self._compressed, self._ready = None, b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._ready:
            if self._frame is not None and self._frame.eof:
                self._compressed, self._frame = self._frame.unused_data, None
            chunk = self._compressed or self._raw.read(_ZSTD_BYTES)
            self._compressed = b""
            if not chunk:
                if self._frame is not None:
                    raise self._damaged("it ends inside a frame")
                return 0
            self._frame = self._frame or self._zstandard.ZstdDecompressor().decompressobj()
            try:
                self._ready = self._frame.decompress(chunk)
            except self._zstandard.ZstdError as error:
                raise self._damaged(error) from error
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _damaged(self, reason: object) -> CptjaxError:
        return CptjaxError(
            f"{self._file} is damaged: {reason}.\n  Its zstd stream cannot be read to the end; fetch it again."
        )


def _kind(file: str) -> str:
    """The suffix that says what is in the file, a compression's left aside."""
    for packed in _COMPRESSED[1:]:
        file = file.removesuffix(packed)
    return "." + file.rsplit(".", 1)[-1]


def _table_records(file: str, name: str, first: int) -> Iterator[Record]:
    pyarrow = _needs("pyarrow", file)
    try:
        with epath.Path(file).open("rb") as stream:
            batches = _parquet_batches(stream, file) if file.endswith(".parquet") else _arrow_batches(stream, file)
            number = 0
            for batch in batches:
                if number + batch.num_rows > first:
                    rows = _rows(batch.slice(max(0, first - number)))
                    for row_number, row in enumerate(rows, max(number, first)):
                        yield Record(f"{file}, row {row_number}", f"{name}:{row_number}", row)
                number += batch.num_rows
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException, OSError) as error:
        raise CptjaxError(f"{file} is damaged: {str(error).splitlines()[0]}\n  Fetch it again.") from error


def _rows(batch) -> list[dict]:
    """The rows of a batch; of one that is not UTF-8 nothing but a "text" that is none, for whoever reads it to refuse."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [{"text": b""}]
        return [row for number in range(batch.num_rows) for row in _rows(batch.slice(number, 1))]


def _parquet_batches(stream: IO[bytes], file: str) -> Iterator:
    return _needs("pyarrow.parquet", file).ParquetFile(stream).iter_batches(_TABLE_ROWS)


def _arrow_batches(stream: IO[bytes], file: str) -> Iterator:
    """Of the file format (it begins with ARROW1) or of the stream format, which Hugging Face's `save_to_disk` writes."""
    ipc = _needs("pyarrow.ipc", file)
    magic = stream.read(6)
    stream.seek(0)
    if magic == b"ARROW1":
        reader = ipc.open_file(stream)
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    stream.seek(-len(_STREAM_END), io.SEEK_END)
    if stream.read() != _STREAM_END:  # pyarrow takes what was cut off between two batches for whole
        raise CptjaxError(f"{file} is damaged: it ends without the mark of an Arrow stream's end.\n  Fetch it again.")
    stream.seek(0)
    return iter(ipc.open_stream(stream))


def _needs(module: str, file: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ConfigurationError(
            f"{file} needs the package {package!r}, which is not installed.\n"
            "  Install cptjax with its extra `text` (pip install 'cptjax[text]')."
        ) from error
