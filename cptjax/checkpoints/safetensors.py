"""The safetensors format, read one tensor at a time: never a whole model in memory, never a pickle.

A file is 8 bytes of header length (little endian), a JSON header {name: {dtype, shape, data_offsets}, "__metadata__"},
and the tensors' bytes, without gaps (https://huggingface.co/docs/safetensors).
"""

import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from cptjax.errors import CptjaxError

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
MAXIMUM_HEADER = 100_000_000  # bytes, the limit of the format's own library
BLOCK = 1 << 24  # bytes hashed at a time


class TensorSpec(NamedTuple):
    """A tensor without its values."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the values."""
        return self.dtype.itemsize * math.prod(self.shape)


class SafetensorsFile:
    """An opened, validated file. `specs` lists its tensors; nothing of their values is read before `read` asks for it.

    Raises:
        CptjaxError: the file is truncated, its header damaged, or its tensors overlap, leave gaps, reach past its end.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        size = self.path.stat().length
        header, self._data = _read_header(self.path, size)
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._offsets = {name: _offsets(self.path, name, entry) for name, entry in header.items()}
        self.specs = {name: TensorSpec(DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in header.items()}
        _check_layout(self.path, self._offsets, size - self._data)
        # A local file is mapped: slicing touches only the pages it needs. Elsewhere byte ranges are read.
        self._map = _map(self.path) if "://" not in os.fspath(self.path) else None
        self._mapped = None if self._map is None else np.frombuffer(self._map, np.uint8)

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """The tensor `name`, or the given rows of its first axis; read-only, a view of the file where it is local."""
        spec = self.specs[name]
        start, stop = self._offsets[name]
        shape = spec.shape
        if rows != slice(None):
            first, last, _ = slice(rows.start, rows.stop).indices(shape[0])
            row_bytes = (stop - start) // max(shape[0], 1)
            start, stop = start + first * row_bytes, start + max(first, last) * row_bytes
            shape = (max(first, last) - first, *shape[1:])
            if start == stop:
                return np.empty(shape, spec.dtype)
        return np.frombuffer(self._bytes(start, stop), spec.dtype).reshape(shape)

    def around(self, name: str, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
        """The whole tensor `name`, of whose rows only those in `ranges` may be looked at: no others are read."""
        spec, (start, stop) = self.specs[name], self._offsets[name]
        if self._mapped is not None:
            for first, last in ranges:
                self.read(name, slice(first, last))  # the system begins to read them
            whole = self._mapped[self._data + start : self._data + stop]
            return np.frombuffer(whole, spec.dtype).reshape(spec.shape)
        if list(ranges) == [(0, spec.shape[0])]:
            return self.read(name)
        whole = np.empty(spec.shape, spec.dtype)  # rows that nobody touches take no memory
        for first, last in ranges:
            whole[first:last] = self.read(name, slice(first, last))
        return whole

    def blocks(self, name: str) -> Iterator[Any]:
        """The tensor's bytes as they lie in the file, a block at a time."""
        start, stop = self._offsets[name]
        for block in range(start, stop, BLOCK):
            yield self._bytes(block, min(block + BLOCK, stop))

    def _bytes(self, start: int, stop: int) -> Any:
        if self._mapped is not None:
            _expect(self._map, self._data + start, self._data + stop)
            return self._mapped[self._data + start : self._data + stop]
        with self.path.open("rb") as file:
            file.seek(self._data + start)
            return file.read(stop - start)


def _map(path: epath.Path) -> mmap.mmap:
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mapped, "madvise"):
        # No reading ahead of what is touched, which may be another process's part: `_expect` says what will be.
        mapped.madvise(mmap.MADV_RANDOM)
    return mapped


def _expect(mapped: mmap.mmap, start: int, stop: int) -> None:
    """Has the system begin to read a range of bytes, all of it at once."""
    start -= start % mmap.PAGESIZE
    if stop > start and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_WILLNEED, start, stop - start)


def _read_header(path: epath.Path, size: int) -> tuple[dict[str, Any], int]:
    """The header and the offset at which the tensors' bytes begin."""
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if prefix == b"version ":
            raise CptjaxError(
                f"{path} is a pointer of git LFS, not the file it stands for.\n  Fetch the files: git lfs pull."
            )
        if len(prefix) < 8 or length > MAXIMUM_HEADER:
            raise CptjaxError(f"{path} is not a safetensors file: it does not begin with the length of a header.")
        if 8 + length > size:
            raise CptjaxError(
                f"{path} is truncated: its header should take {length} bytes, the whole file has {size}.\n"
                "  Download or copy it again."
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except ValueError as error:
        raise CptjaxError(f"{path} is not a safetensors file: its header is not readable ({error}).") from None
    if not isinstance(header, dict):
        raise CptjaxError(f"{path} is not a safetensors file: its header is not a table of tensors.")
    if not isinstance(header.get("__metadata__", {}), dict):
        raise CptjaxError(f"{path} is not a safetensors file: its __metadata__ is not a table.")
    return header, 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands in it twice")
    return table


def _offsets(path: epath.Path, name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes lie, counted from the end of the header; its entry checked."""
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = isinstance(dtype, str) and all(type(number) is int and number >= 0 for number in [*shape, start, stop])
    except (TypeError, KeyError, ValueError):
        whole = False
    if not whole:
        raise CptjaxError(f"{path}: the header's entry for tensor {name!r} is damaged: {entry!r}.")
    if dtype not in DTYPES:
        raise CptjaxError(f"{path}: tensor {name!r} has the unknown dtype {dtype!r}; known are {', '.join(DTYPES)}.")
    needed = DTYPES[dtype].itemsize * math.prod(shape)
    if stop - start != needed:
        raise CptjaxError(
            f"{path}: tensor {name!r} of shape {tuple(shape)} and dtype {dtype} needs {needed} bytes, but its offsets "
            f"[{start}, {stop}] hold {stop - start}."
        )
    return start, stop


def _check_layout(path: epath.Path, offsets: Mapping[str, tuple[int, int]], available: int) -> None:
    """Tensors must follow one another without overlap or gap and fill the file exactly."""
    end, last = 0, None
    for name, (start, stop) in sorted(offsets.items(), key=lambda item: item[1]):
        if start != end:
            what = "overlaps" if start < end else f"begins at byte {start}, leaving a gap after"
            before = f"tensor {last!r}, which ends at byte {end}" if last else "the header"
            raise CptjaxError(f"{path}: tensor {name!r} {what} {before}.")
        if stop > available:
            raise CptjaxError(
                f"{path} is truncated: tensor {name!r} ends at byte {stop} of the tensors, but the file has only "
                f"{available} bytes of them.\n  Download or copy it again."
            )
        end, last = stop, name
    if end != available:
        raise CptjaxError(f"{path}: its tensors take {end} bytes, but {available} bytes follow the header.")
