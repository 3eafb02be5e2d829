"""Near-duplicate removal as a policy: of each group of texts that are nearly the same one stays.

Groups are connected by pairs whose sets of shingles have at least a given Jaccard similarity. Every such pair is found
(near_duplicates.py): MinHash with banding, which is what others do here, is built to miss some.
"""

import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.selection.near_duplicates import groups
from cptjax.selection.shingles import Shingles, ShingleStore, character_shingles, jaccard, word_shingles

STAGE = "near_duplicates"
KEEP = ("first", "longest")
_SHINGLE = re.compile(r"([1-9]\d*) (characters|words)")


@dataclasses.dataclass(frozen=True)
class Fate:
    """What becomes of a unit, and why.

    Attributes:
        stage: of the selection, where it went; None: it is kept.
        instead: the unit that stays in its place; None where there is none.
        cluster: a number that the units of its group share; None: it is alone.
        score: what it was decided by; None: nothing.
    """

    kept: bool
    stage: str | None = None
    instead: int | None = None
    cluster: int | None = None
    score: float | None = None


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """What texts are nearly the same, and which of them stays.

    Attributes:
        threshold: the Jaccard similarity from which two texts are.
        shingle: "5 words" (without case and punctuation; of Chinese, Japanese and Korean each character is a word), or
            "5 characters" (of the raw text), or a number, of characters.
        keep: which of a group stays: "first" in the corpus, or "longest" in characters (of several, the first).
        most_shingles: 8 bytes of memory each, and some times that while they are compared. Of a corpus with more of them an
            even sample is compared, so that similarities are estimates.
    """

    threshold: float = 0.7
    shingle: str | float = "5 words"
    keep: str = "first"
    most_shingles: float = 1e8

    def __post_init__(self):
        if not isinstance(self.threshold, int | float) or not 0 < self.threshold <= 1:
            raise ConfigurationError(f"THRESHOLD = {self.threshold!r}: a similarity above 0 and at most 1.")
        if self.keep not in KEEP:
            raise ConfigurationError(f"KEEP = {self.keep!r}: one of {', '.join(KEEP)}.")
        if not isinstance(self.most_shingles, int | float) or self.most_shingles < 1:
            raise ConfigurationError(f"most_shingles is {self.most_shingles!r}; it is at least 1.")
        self.shingles("")  # refuses what is no shingle

    def shingles(self, text: str) -> Shingles:
        """The shingles of a text.

        Raises:
            ConfigurationError: `shingle` is none.
        """
        number = isinstance(self.shingle, int | float) and not isinstance(self.shingle, bool)
        written = f"{self.shingle:.15g} characters" if number else str(self.shingle)
        if not (found := _SHINGLE.fullmatch(written)):
            raise ConfigurationError(
                f"SHINGLE = {self.shingle!r}: write it like '5 words' or '5 characters'; 5 alone is 5 characters."
            )
        return (character_shingles if found[2] == "characters" else word_shingles)(text, int(found[1]))

    def select(self, texts: Iterable[str]) -> tuple[list[Fate], str]:
        """What becomes of each text, and what was done, in a line. A text without any word has no shingle, and stays."""
        store, lengths = ShingleStore(int(self.most_shingles)), []
        for text in texts:
            store.add(self.shingles(text))
            lengths.append(len(text))
        label = groups(store.sets, self.threshold)
        # Of each group the one that stays: labels are the group's first member.
        stays = label.copy()
        if self.keep == "longest":
            order = np.lexsort((np.arange(len(label)), -np.array(lengths, np.int64), label))
            stays[order] = order[np.searchsorted(label[order], label[order])]
        size = np.bincount(label, minlength=len(label))[label]
        fates = [self._fate(i, int(stays[i]), int(label[i]) if size[i] > 1 else None, store) for i in range(len(label))]
        found = f"{len(np.unique(label[size > 1])):,} groups of near-duplicates, from {self.threshold:g} on"
        if store.modulus > 1:
            found += f", estimated by one shingle in {store.modulus:,}"
        return fates, found

    def _fate(self, unit: int, stays: int, cluster: int | None, store: ShingleStore) -> Fate:
        if stays == unit:
            return Fate(True, cluster=cluster)
        return Fate(False, STAGE, stays, cluster, jaccard(store.sets[unit], store.sets[stays]))
