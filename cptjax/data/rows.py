"""Packed rows on disk: ArrayRecord shards, an index of their documents, and a manifest that is written last.

A folder holds `rows-00000.array_record`, ..., `documents.array_record` (a JSON object a document: id, bytes, tokens,
metadata) and `manifest.json`. A folder without a manifest is unfinished and is never read. The manifest's
`fingerprint` covers everything that decides the rows, so equal fingerprints mean equal batches.
"""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from cptjax.data.local import local_copy
from cptjax.data.packing import CONCATENATE, Row
from cptjax.data.row_format import batch_of, decode_row, encode_row, token_bytes
from cptjax.errors import CptjaxError

FORMAT = 2  # 1: sources whose names were not in alphabetical order could get one another's rows
SHARD_BYTES = 256 * 2**20
MANIFEST = "manifest.json"
DOCUMENTS = "documents.array_record"
_WRITE = "group_size:1"  # one row a chunk: a row can be read without decompressing its neighbours
_READ = "readahead_buffer_size:0,max_parallelism:0"  # what array_record advises for random access


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of rows holds. `tokens` counts targets of a weight above 0, `bytes` the raw UTF-8 text that they cover.

    `tokenizer`: its name, fingerprint and size, and what it `loses` of a text (None: nothing; `data.normalizers`).
    """

    source: str
    split: str
    files: tuple[Mapping[str, str], ...]
    tokenizer: Mapping[str, str | int | None]
    sequence_length: int
    start: int
    eos: int
    settings: Mapping[str, object]
    rows: int
    tokens: int
    documents: int
    bytes: int
    shards: tuple[Mapping[str, str | int], ...]
    content: str
    packing: str = CONCATENATE
    format: int = FORMAT
    fingerprint: str = ""

    def to_json(self) -> str:
        """The manifest as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)


def read_manifest(folder: str) -> Manifest:
    """The manifest of a finished folder.

    Raises:
        CptjaxError: no manifest (the folder is unfinished), one that cannot be read, or one of another format.
    """
    path = epath.Path(folder) / MANIFEST
    if not path.exists():
        raise CptjaxError(
            f"{folder} holds no finished rows: there is no {MANIFEST} in it.\n  Delete it to prepare it again."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("format") != FORMAT:
            raise CptjaxError(
                f"{path} is of format {found.get('format')}; this version reads {FORMAT}.\n"
                f"  Delete {folder} to prepare it again."
            )
        manifest = Manifest(**{**found, "files": tuple(found["files"]), "shards": tuple(found["shards"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CptjaxError(f"{path} is damaged: {error}.\n  Delete {folder} to prepare it again.") from error
    if _fingerprint(manifest) != manifest.fingerprint:
        raise CptjaxError(
            f"{path} was changed after it was written: its fingerprint does not match.\n"
            f"  Restore it, or delete {folder} to prepare it again."
        )
    return manifest


class RowWriter:
    """Writes one split into a fresh local folder; `finish` writes the manifest, and only then does the folder count."""

    def __init__(self, folder: str, sequence_length: int, vocabulary: int, shard_bytes: int = SHARD_BYTES):
        self._folder = epath.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=False)
        self._width = token_bytes(vocabulary)
        self._sequence_length = sequence_length
        self._shard_bytes = shard_bytes
        self._shards: list[dict[str, str | int]] = []
        self._writer: ArrayRecordWriter | None = None
        self._documents = ArrayRecordWriter(str(self._folder / DOCUMENTS), "group_size:64")
        self._content = hashlib.sha256()
        self._written = 0
        self.rows = self.tokens = self.documents = self.bytes = 0

    def document(self, name: str, size: int, tokens: int, metadata: Mapping[str, object]) -> int:
        """Notes the next document (`size` raw UTF-8 bytes, `tokens` targets) and returns its ordinal."""
        entry = {"id": name, "bytes": size, "tokens": tokens, "metadata": dict(metadata)}
        record = json.dumps(entry, ensure_ascii=False).encode()
        self._documents.write(record)
        self._content.update(record)
        self.documents += 1
        self.bytes += size
        return self.documents - 1

    def row(self, row: Row) -> None:
        """Appends a row."""
        record = encode_row(row, self._width)
        if self._writer is None or self._written + len(record) > self._shard_bytes:
            self._close_shard()
            self._shards.append({"name": f"rows-{len(self._shards):05d}.array_record", "rows": 0})
            self._writer = ArrayRecordWriter(str(self._folder / self._shards[-1]["name"]), _WRITE)
            self._written = 0
        self._writer.write(record)
        self._content.update(record)
        self._written += len(record)
        self._shards[-1]["rows"] += 1
        self.rows += 1
        self.tokens += int(row.lengths.sum() if row.weights is None else np.count_nonzero(row.weights))

    def finish(self, **facts: object) -> Manifest:
        """Closes the shards and writes the manifest; `facts` are the Manifest fields that only the caller knows."""
        self._close_shard()
        self._documents.close()
        manifest = Manifest(
            sequence_length=self._sequence_length,
            rows=self.rows,
            tokens=self.tokens,
            documents=self.documents,
            bytes=self.bytes,
            shards=tuple(self._shards),
            content=self._content.hexdigest(),
            **facts,
        )
        manifest = dataclasses.replace(manifest, fingerprint=_fingerprint(manifest))
        aside = self._folder / f".{MANIFEST}"
        aside.write_text(manifest.to_json(), encoding="utf-8")
        aside.rename(self._folder / MANIFEST)
        return manifest

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class RowReader:
    """Reads the rows of a finished folder by index, in batches. May be shared by threads."""

    def __init__(self, folder: str):
        self.folder = str(folder)
        self.manifest = read_manifest(self.folder)
        local = local_copy(self.folder, self.manifest.fingerprint)
        self._readers = [self._open(local, shard["name"], shard["rows"]) for shard in self.manifest.shards]
        self._index = self._open(local, DOCUMENTS, self.manifest.documents, "")
        self._starts = np.cumsum([0, *(shard["rows"] for shard in self.manifest.shards)])
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.manifest.rows

    def pieces(self, indices: Sequence[int]) -> list[Row]:
        """The rows at `indices`, in that order, as they were packed."""
        indices = np.asarray(indices, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"{self.folder} holds rows 0 to {len(self) - 1}, asked for {indices.min()} to {indices.max()}"
            )
        rows: list[Row | None] = [None] * len(indices)
        shards = np.searchsorted(self._starts, indices, "right") - 1
        for shard in np.unique(shards):
            wanted = np.flatnonzero(shards == shard)
            origin = f"{self.folder}/{self.manifest.shards[shard]['name']}"
            records = self._records(self._readers[shard], (indices[wanted] - self._starts[shard]).tolist(), origin)
            for at, record in zip(wanted, records, strict=True):
                rows[at] = decode_row(record, origin)
        return rows

    def read(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """The rows at `indices` as a batch (`row_format.batch_of`), [len(indices), sequence_length]."""
        return batch_of(self.pieces(indices), self.manifest.sequence_length)

    def documents(self, ordinals: Sequence[int]) -> list[dict]:
        """`{"id", "bytes", "tokens", "metadata"}` of the documents with these ordinals."""
        origin = f"{self.folder}/{DOCUMENTS}"
        return [json.loads(record) for record in self._records(self._index, list(map(int, ordinals)), origin)]

    def _records(self, reader: ArrayRecordReader, indices: list[int], origin: str) -> list[bytes]:
        if not indices:
            return []
        try:
            with self._lock:
                return reader.read(indices)
        except Exception as error:  # array_record raises plain exceptions for damaged chunks
            raise CptjaxError(f"{origin} is damaged: {error}.\n  Delete {self.folder} to prepare it again.") from error

    def _open(self, local: str, name: str, expected: int, options: str = _READ) -> ArrayRecordReader:
        try:
            reader = ArrayRecordReader(f"{local}/{name}", options)
            found = reader.num_records()
        except Exception as error:  # array_record raises plain exceptions for a missing or damaged file
            raise CptjaxError(
                f"{self.folder}/{name} cannot be read: {error}.\n  Delete {self.folder} to prepare it again."
            ) from error
        if found != expected:
            raise CptjaxError(
                f"{self.folder}/{name} holds {found} records; its manifest says {expected}.\n"
                f"  Delete {self.folder} to prepare it again."
            )
        return reader


def _fingerprint(manifest: Manifest) -> str:
    """sha256 over all but the fingerprint itself, names (of the source, its files, the tokenizer) and what the tokenizer loses.

    That follows from the tokenizer's own fingerprint; rows made before it was said are the same rows.
    """
    facts = dataclasses.asdict(manifest)
    del facts["fingerprint"], facts["source"]
    facts["files"] = [{key: value for key, value in file.items() if key != "name"} for file in manifest.files]
    facts["tokenizer"] = {key: value for key, value in facts["tokenizer"].items() if key not in ("name", "loses")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
