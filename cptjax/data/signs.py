"""What tells documents apart, and exam items in them, found chunk by chunk where they are tokenized: one file a chunk.

The split is decided from these once all are there (scan.py), so that what takes long is shared by all cores.
"""

import dataclasses
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cptjax.data.contamination import open_exams
from cptjax.data.splits import same_text
from cptjax.errors import CptjaxError
from cptjax.files import write_file
from cptjax.selection.shingles import Shingles, word_shingles


@dataclasses.dataclass(frozen=True)
class Asked:
    """What has to be known of every document: its shingles, and the items of these exam files in it."""

    shingles: bool = False
    exams: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sign:
    """Of one document: `splits.same_text`; its shingles (none if not asked for); exam items that are in it, int64."""

    same: int
    shingles: Shingles
    items: np.ndarray


class Signs:
    """Finds the signs of texts."""

    def __init__(self, asked: Asked):
        self._asked = asked
        self._exams = open_exams(asked.exams) if asked.exams else None

    def of(self, text: str) -> Sign:
        """The signs of one text."""
        shingles = word_shingles(text) if self._asked.shingles else np.zeros(0, np.uint64)
        items = np.zeros(0, np.int64) if self._exams is None else self._exams.found_in(text)
        return Sign(same_text(text), shingles, items)


def signs_name(number: int) -> str:
    """The file of a chunk's signs."""
    return f"signs-{number:05d}"


def write_signs(path: Path, signs: Sequence[Sign]) -> None:
    """Writes the signs of a chunk's documents, the whole file or nothing."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        same=np.array([sign.same for sign in signs], np.uint64),
        shingles=np.concatenate([np.zeros(0, np.uint64), *(sign.shingles for sign in signs)]),
        shingle_ends=np.cumsum([len(sign.shingles) for sign in signs], dtype=np.int64),
        items=np.concatenate([np.zeros(0, np.int64), *(sign.items for sign in signs)]),
        item_ends=np.cumsum([len(sign.items) for sign in signs], dtype=np.int64),
    )
    write_file(path, buffer.getvalue())


def read_signs(path: Path) -> Iterable[Sign]:
    """What `write_signs` wrote. Raises CptjaxError: the file is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        shingles = np.split(arrays["shingles"], arrays["shingle_ends"][:-1])
        items = np.split(arrays["items"], arrays["item_ends"][:-1])
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CptjaxError(f"{path} is damaged: {error}.\n  Delete it to make it again.") from error
    return [Sign(int(same), *rest) for same, *rest in zip(arrays["same"], shingles, items, strict=True)]
