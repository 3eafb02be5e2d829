"""Exam items in training text: runs of 13 words, or of 30 characters of scripts without spaces (PROTOCOL.md 7).

Texts are compared after Unicode NFKC with white space folded. An item is contaminated by a document when they share a run.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from etils import epath

from cptjax.data.readers import file_records
from cptjax.data.records import fields_of
from cptjax.errors import ConfigurationError
from cptjax.selection.shingles import runs

WORDS, CHARACTERS = 13, 30
# Kana, han, Thai, Lao, Burmese, Khmer: written without spaces between words.
_SPACELESS = (
    *((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x20000, 0x3FFFF)),
)
_SPACELESS_SHARE = 0.3  # of a run's characters, from which it is compared by characters
_ABOUT = ("text", "context", "passage", "article", "story", "background")  # what a question may be asked about


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
    return runs_of_items({file: _item_texts(file) for file in files})


def runs_of_items(texts: Mapping[str, Iterable[Sequence[str]]]) -> Exams:
    """The runs of items: by exam, of each item the texts that its runs are taken from."""
    items: dict[str, int] = {}
    found: tuple[list, list] = ([], [])
    count = short = 0
    for file, of_items in texts.items():
        before = count
        for text in of_items:
            both = [np.concatenate([kind(fold(each)) for each in text]) for kind in (word_runs, spaceless_runs)]
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
    units = _units(folded)
    return runs(units, CHARACTERS) if len(units) >= CHARACTERS else np.zeros(0, np.uint64)


def spaceless_runs(folded: str) -> np.ndarray:
    """Those of `character_runs` of whose characters at least 9 in 30 are of scripts without spaces."""
    units = _units(folded)
    if len(units) < CHARACTERS:
        return np.zeros(0, np.uint64)
    within = np.zeros(len(units) + 1, np.int64)
    for first, last in _SPACELESS:
        within[1:] += (units >= first) & (units <= last)
    within = np.cumsum(within)
    enough = within[CHARACTERS:] - within[:-CHARACTERS] >= _SPACELESS_SHARE * CHARACTERS
    edges = np.flatnonzero(np.diff(np.concatenate([[False], enough, [False]])))
    spans = edges.reshape(-1, 2).tolist()
    found = [runs(units[begin : end + CHARACTERS - 1], CHARACTERS) for begin, end in spans]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


def describe_exams(exams: Exams) -> str:
    """How many items there are, and how many of them are too short to be looked for."""
    said = f"{sum(exams.items.values()):,} exam items in {len(exams.items)} file{'' if len(exams.items) == 1 else 's'}"
    short = f"{exams.short:,} of them are too short to be looked for ({WORDS} words, or {CHARACTERS} characters)"
    return f"{said}; {short}" if exams.short else said


def _units(folded: str) -> np.ndarray:
    return np.frombuffer(folded.replace(" ", "").encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)


def _hits(mine: np.ndarray, hashes: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The items of all entries of the sorted `hashes` that are in `mine`."""
    if not len(hashes) or not len(mine):
        return np.zeros(0, np.int64)
    left, right = np.searchsorted(hashes, mine, "left"), np.searchsorted(hashes, mine, "right")
    return np.concatenate([np.zeros(0, np.int64), *(items[a:b] for a, b in zip(left, right, strict=True) if b > a)])


def _item_texts(file: str) -> Iterator[list[str]]:
    """What an item's runs are taken from: its question with each of its choices, what it is asked about; or its text.

    Raises:
        ConfigurationError: a record that is none of these: what is not understood cannot be looked for.
    """
    if not epath.Path(file).exists():
        raise ConfigurationError(f"there is no exam file {file}.")
    for record in file_records(file, file):
        fields = fields_of(record)
        about = [fields[name] for name in _ABOUT if isinstance(fields.get(name), str)]
        question = fields.get("question")
        if isinstance(question, str):
            texts = [f"{question} {choice}" for choice in _choices(fields, record.where)] + about
        else:
            texts = about
        if not texts:
            raise ConfigurationError(
                f"{record.where} is no exam item that can be looked for: its fields are {sorted(fields)}.\n"
                '  It must have a string "question" (and "choices"), or a "text".'
            )
        if any(0xD800 <= ord(letter) <= 0xDFFF for text in texts for letter in text):
            raise ConfigurationError(f"{record.where} holds half of a surrogate pair, which is not Unicode text.")
        yield texts


def _choices(fields: Mapping[str, object], where: str) -> list[str]:
    """The choices of a question, in any of the forms that exams are published in; one empty one where there are none."""
    lettered = [fields[letter] for letter in "ABCDE" if letter in fields]
    given = next((fields[name] for name in ("choices", "options") if fields.get(name) is not None), lettered or [""])
    given = given.get("text") if isinstance(given, Mapping) else given  # {"text": [...], "label": [...]}
    if not isinstance(given, list | tuple) or not all(isinstance(choice, str) for choice in given):
        raise ConfigurationError(f"{where}: its choices are {given!r}; they are a list of texts.")
    return list(given) or [""]
