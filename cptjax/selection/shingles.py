"""Texts as sets of shingles: distinct 64-bit hashes of their runs of words or characters (Broder 1997)."""

import functools
import re
import sys
import unicodedata

import numpy as np
from jaxtyping import UInt64

from cptjax.errors import ConfigurationError

# Scripts that are written without spaces: kana, han, hangul. Each of their characters is a word.
_ALONE = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF))
_IN_WORD, _OWN_WORD = 1, 2
_WRITTEN = re.compile(r"([1-9]\d*) (characters|words)")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication by it is a permutation of the 64-bit numbers

Shingles = UInt64[np.ndarray, "shingles"]


def word_shingles(text: str, n: int = 5) -> Shingles:
    """The distinct runs of `n` words of a text, sorted; one run of all its words where it has fewer, none where it has none.

    Case, Unicode compatibility (NFKC), punctuation and white space do not count. Han, kana and hangul characters are
    words of their own.
    """
    return runs(_word_hashes(unicodedata.normalize("NFKC", text).casefold()), n)


def character_shingles(text: str, n: int) -> Shingles:
    """The distinct runs of `n` characters of the raw text, sorted."""
    return runs(np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint64), n)


def shingled(text: str, written: str | float) -> Shingles:
    """The shingles of a text as `written` says: "5 words", "5 characters", or a number, of characters.

    Raises:
        ConfigurationError: what is written is no shingle.
    """
    number = isinstance(written, int | float) and not isinstance(written, bool)
    found = _WRITTEN.fullmatch(f"{written:.15g} characters" if number else str(written))
    if not found:
        raise ConfigurationError(
            f"SHINGLE = {written!r}: write it like '5 words' or '5 characters'; 5 alone is 5 characters."
        )
    return (character_shingles if found[2] == "characters" else word_shingles)(text, int(found[1]))


def runs(units: np.ndarray, n: int) -> Shingles:
    """The distinct runs of `n` units (uint64), hashed, sorted; one run of all of them where there are fewer."""
    if not len(units):
        return np.zeros(0, np.uint64)
    n = min(n, len(units))
    found = np.zeros(len(units) - n + 1, np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64
        for k in range(n):
            found = _mixed(found * _MULTIPLIER + units[k : k + len(found)])
    found.sort()  # np.unique would put them in a hash table first, and takes ten times as long
    first = np.ones(len(found), bool)
    np.not_equal(found[1:], found[:-1], out=first[1:])
    return found[first]


def jaccard(one: Shingles, other: Shingles) -> float:
    """|A & B| / |A | B| of two sets that are not both empty."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Spreads every bit over all (the finalizer of splitmix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _word_hashes(text: str) -> UInt64[np.ndarray, " words"]:
    """A hash of each word: of its characters and their places in it. All words at once, for a text has thousands."""
    units = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    kind = _kinds()[units]
    begins = kind == _OWN_WORD
    within = kind == _IN_WORD
    begins[:1] |= within[:1]
    begins[1:] |= within[1:] & ~within[:-1]
    kept = np.flatnonzero(kind)
    if not len(kept):
        return np.zeros(0, np.uint64)
    first = np.flatnonzero(begins[kept])
    place = np.arange(len(kept)) - np.repeat(first, np.diff(first, append=len(kept)))
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64
        letters = _mixed(units[kept] + (place.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER)
        return _mixed(np.add.reduceat(letters, first))


def word_begins(text: str) -> list[int]:
    """Where each word begins, as a place in `text`: after white space, and at each character that is a word of its own."""
    units = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    blank = np.fromiter(map(str.isspace, text), bool, len(text))
    alone = _kinds()[units] == _OWN_WORD
    begins = ~blank
    begins[1:] &= blank[:-1] | alone[1:] | (alone[:-1] & (_kinds()[units[1:]] == _IN_WORD))
    return np.flatnonzero(begins).tolist()


@functools.cache
def _kinds() -> np.ndarray:
    """Of each character whether it is no part of a word (0), one of a word, or a word of its own."""
    letters = np.fromiter(map(str.isalnum, map(chr, range(sys.maxunicode + 1))), bool, sys.maxunicode + 1)
    kinds = np.where(letters, _IN_WORD, 0).astype(np.uint8)
    kinds[ord("_")] = _IN_WORD
    for first, last in _ALONE:
        kinds[first : last + 1] = _OWN_WORD
    return kinds


class ShingleStore:
    """The shingles of many texts in bounded memory.

    While they are at most `limit` in all they are kept whole. Beyond, only hashes divisible by `modulus` are kept, a
    power of two that grows as needed (Broder's mod-p sketch): similarities between texts become estimates.
    """

    def __init__(self, limit: int = 20_000_000):
        self.sets: list[Shingles] = []
        self.modulus = 1
        self._limit, self._count = limit, 0

    def add(self, shingles: Shingles) -> None:
        """Takes the next text's shingles."""
        self.sets.append(self._kept(shingles))
        self._count += len(self.sets[-1])
        while self._count > self._limit:
            self.modulus *= 2
            self.sets = [self._kept(each) for each in self.sets]
            self._count = sum(map(len, self.sets))

    def _kept(self, shingles: Shingles) -> Shingles:
        return shingles[shingles % np.uint64(self.modulus) == 0] if self.modulus > 1 else shingles
