"""Exam items in training text: runs of 13 words, or of 30 characters of scripts without spaces (PROTOCOL.md 7).

Texts are compared after Unicode NFKC with white space folded. An item is contaminated by a document when they share a run.
"""

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from etils import epath

from cptjax.data.readers import file_records
from cptjax.data.records import document_of
from cptjax.errors import ConfigurationError
from cptjax.selection.shingles import runs

WORDS, CHARACTERS = 13, 30
# Han, kana, Thai, Lao, Khmer, Burmese: written without spaces between words.
_SPACELESS = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\U00020000-\U0003ffff]"
)
_SPACELESS_SHARE = 0.3  # of a text's characters, from which it is compared by characters


@dataclasses.dataclass(frozen=True)
class Exams:
    """The runs of exam items: sorted hashes, and the item that each belongs to.

    Attributes:
        items: how many there are in each file, in order; short: items too short to have a run.
        words, characters: uint64 hashes, ascending, of each kind of run; of_word, of_character: the item of each, int64.
    """

    items: Mapping[str, int]
    short: int
    words: np.ndarray
    of_word: np.ndarray
    characters: np.ndarray
    of_character: np.ndarray

    def found_in(self, text: str) -> np.ndarray:
        """The items (int64, ascending) that share a run with `text`."""
        folded = fold(text)
        hits = [_hits(word_runs(folded), self.words, self.of_word)]
        if len(self.characters):
            hits.append(_hits(character_runs(folded), self.characters, self.of_character))
        return np.unique(np.concatenate(hits))


def open_exams(files: Sequence[str]) -> Exams:
    """Reads exam files: JSON lines with a question and its choices, or a text.

    Raises:
        ConfigurationError: a file that is not there, or holds something else.
    """
    items: dict[str, int] = {}
    found: tuple[list, list] = ([], [])
    count = short = 0
    for file in files:
        before = count
        for text in _item_texts(file):
            both = [
                np.concatenate([kind(fold(each)) for each in text])
                for kind in (_word_runs_or_none, _character_runs_or_none)
            ]
            for hashes, kept in zip(both, found, strict=True):
                kept.append((hashes, np.full(len(hashes), count)))
            short += not any(len(hashes) for hashes in both)
            count += 1
        items[file] = count - before
    sides = []
    for kept in found:
        hashes = np.concatenate([np.zeros(0, np.uint64), *(each for each, _ in kept)])
        order = np.argsort(hashes, kind="stable")
        sides += [hashes[order], np.concatenate([np.zeros(0, np.int64), *(each for _, each in kept)])[order]]
    return Exams(items, short, *sides)


def fold(text: str) -> str:
    """NFKC, white space folded."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def word_runs(folded: str) -> np.ndarray:
    """Hashes of the runs of 13 words; none where there are fewer."""
    words = folded.split(" ")
    if len(words) < WORDS:
        return np.zeros(0, np.uint64)
    hashed = (int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little") for word in words)
    return runs(np.fromiter(hashed, np.uint64, len(words)), WORDS)


def character_runs(folded: str) -> np.ndarray:
    """Hashes of the runs of 30 characters, spaces left out; none where there are fewer."""
    units = np.frombuffer(folded.replace(" ", "").encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    return runs(units, CHARACTERS) if len(units) >= CHARACTERS else np.zeros(0, np.uint64)


def _is_spaceless(folded: str) -> bool:
    return len(_SPACELESS.findall(folded)) >= _SPACELESS_SHARE * max(1, len(folded))


def _word_runs_or_none(folded: str) -> np.ndarray:
    return np.zeros(0, np.uint64) if _is_spaceless(folded) else word_runs(folded)


def _character_runs_or_none(folded: str) -> np.ndarray:
    return character_runs(folded) if _is_spaceless(folded) else np.zeros(0, np.uint64)


def _hits(mine: np.ndarray, hashes: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The items of all entries of the sorted `hashes` that are in `mine`."""
    if not len(hashes) or not len(mine):
        return np.zeros(0, np.int64)
    left, right = np.searchsorted(hashes, mine, "left"), np.searchsorted(hashes, mine, "right")
    return np.concatenate([np.zeros(0, np.int64), *(items[a:b] for a, b in zip(left, right, strict=True) if b > a)])


def _item_texts(file: str) -> Iterator[list[str]]:
    """What an item's runs are taken from: its question with each of its choices, or its text."""
    if not epath.Path(file).exists():
        raise ConfigurationError(f"there is no exam file {file}.")
    for record in file_records(file, file):
        fields = (
            json.loads(record.content) if isinstance(record.content, bytes) and not record.is_text else record.content
        )
        if isinstance(fields, Mapping) and isinstance(fields.get("question"), str):
            choices = fields.get("choices") or [""]
            yield [f"{fields['question']} {choice}" for choice in choices]
        else:
            yield [document_of(record).text]
