"""Texts as sets of shingles: distinct 64-bit hashes of their runs of words or characters (Broder 1997)."""

import hashlib
import re
import unicodedata

import numpy as np
from jaxtyping import UInt64

# A run of word characters, or one character of a script that is written without spaces.
_ALONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication by it is a permutation of the 64-bit numbers

_WORDS_KEPT = 1 << 18

Shingles = UInt64[np.ndarray, "shingles"]


def word_shingles(text: str, n: int = 5) -> Shingles:
    """The distinct runs of `n` words of a text, sorted; one run of all its words where it has fewer, none where it has none.

    Case, Unicode compatibility (NFKC), punctuation and white space do not count. Han, kana and hangul characters are
    words of their own.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return runs(np.fromiter(map(_HASHES.__getitem__, words), np.uint64, len(words)), n)


def character_shingles(text: str, n: int) -> Shingles:
    """The distinct runs of `n` characters of the raw text, sorted."""
    return runs(np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint64), n)


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


def _mixed(x: np.ndarray) -> np.ndarray:
    """Spreads every bit over all (the finalizer of splitmix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class _Hashes(dict[str, int]):
    """64 bits of a hash of each word, kept while they are not too many. (A dict: lru_cache takes twice as long to look up.)"""

    def __missing__(self, word: str) -> int:
        if len(self) >= _WORDS_KEPT:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = found = int.from_bytes(digest, "little")
        return found


_HASHES = _Hashes()


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
