"""Token ids of many documents in one file, between tokenizing and packing: lengths, then ids, read by memory map.

Little-endian: four bytes "CPTT", the number of documents (u32), each one's length (u32), the ids (u32) one after another.
"""

import functools
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cptjax.errors import CptjaxError
from cptjax.files import write_file

_HEADER = struct.Struct("<4sI")
_MAGIC = b"CPTT"


def write_tokens(path: Path, documents: Sequence[np.ndarray]) -> None:
    """Writes the ids of `documents`, the whole file or nothing."""
    lengths = np.array([len(ids) for ids in documents], "<u4")
    ids = np.concatenate([np.zeros(0, "<u4"), *documents]).astype("<u4")
    write_file(path, _HEADER.pack(_MAGIC, len(lengths)) + lengths.tobytes() + ids.tobytes())


class TokenFile:
    """The ids of a file's documents; none of them is in memory until it is asked for."""

    def __init__(self, path: Path):
        """Raises CptjaxError: the file is not whole."""
        self._path = path
        with path.open("rb") as stream:
            head = stream.read(_HEADER.size)
            magic, count = _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0)
            self.lengths = np.frombuffer(stream.read(4 * count), "<u4").astype(np.int64)
        self._at = _HEADER.size + 4 * count
        self._ends = np.cumsum(self.lengths)
        size = self._at + 4 * int(self.lengths.sum())
        if magic != _MAGIC or len(self.lengths) != count or path.stat().st_size != size:
            raise CptjaxError(
                f"{path} is damaged: it is not the {size:,} bytes that it says.\n  Delete it to make it again."
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> np.ndarray:
        """The ids of one document, uint32."""
        end = int(self._ends[number])
        return self._ids[end - int(self.lengths[number]) : end]

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        if not self._ends.size or not self._ends[-1]:
            return np.zeros(0, np.uint32)
        return np.memmap(self._path, "<u4", "r", self._at, int(self._ends[-1]))
