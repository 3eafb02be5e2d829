"""Which documents are held out: decided by groups of near-duplicates, which always fall on one side (PROTOCOL.md 6).

A group is connected by texts that are the same after Unicode NFKC, case folding and whitespace folding, and by pairs
whose 5-word shingles have at least a given Jaccard similarity. A hash of the group, a number in [0, 1), is its place in
line for the validation split. (A split by document id leaks.)
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.selection.near_duplicates import groups
from cptjax.selection.shingles import Shingles


@dataclasses.dataclass(frozen=True)
class SplitSettings:
    """How much to hold out: groups with a hash below `fraction`, until they hold `tokens` tokens.

    near_duplicates: the Jaccard similarity of 5-word shingles from which two texts belong together; None: only texts
    that are the same.
    """

    fraction: float = 0.02
    tokens: int = 2**17
    near_duplicates: float | None = 0.7

    def __post_init__(self):
        if not 0 <= self.fraction <= 0.5:
            raise ConfigurationError(f"validation_fraction is {self.fraction}; it must lie between 0 and 0.5.")
        if self.tokens < 1:
            raise ConfigurationError(
                f"validation_tokens is {self.tokens}; it must be at least 1.\n"
                "  To hold nothing out, set validation_fraction = 0."
            )
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            raise ConfigurationError(
                f"near_duplicates is {self.near_duplicates}; it is a similarity above 0 and at most 1, or None."
            )


def same_text(text: str) -> int:
    """64 bits of a sha256 of the text after NFKC, case folding and whitespace folding."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return int.from_bytes(hashlib.sha256(folded.encode()).digest()[:8], "little")


def places(texts: np.ndarray, shingles: Sequence[Shingles] | None, threshold: float | None) -> np.ndarray:
    """Each document's place in line (uint64; divided by 2**64 uniform in [0, 1)), the same for all of its group.

    It is a hash of the smallest `same_text` in the group: uniform whatever the group's size, and for a text without
    near-duplicates the same in every corpus.

    Args:
        texts: uint64 [documents], `same_text` of each.
        shingles: each document's; None with a threshold of None.
    """
    _, first, of_text = np.unique(texts, return_index=True, return_inverse=True)
    label = first[of_text]
    if threshold is not None and shingles is not None:
        found = groups(shingles, threshold)
        # The same text has the same shingles, so both labels agree, but for texts without any word.
        label = np.where([len(each) > 0 for each in shingles], found, label) if len(found) else label
    _, group = np.unique(label, return_inverse=True)
    smallest = np.full(group.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, group, texts)
    hashed = [
        int.from_bytes(hashlib.sha256(int(each).to_bytes(8, "little")).digest()[:8], "little") for each in smallest
    ]
    return np.array(hashed, np.uint64)[group]


def candidates(place: np.ndarray, settings: SplitSettings) -> np.ndarray:
    """The documents (bool) whose place is below the fraction: those whose tokens `held_out` has to know."""
    return place < np.uint64(min(settings.fraction * 2.0**64, 2.0**64 - 2048))


def held_out(place: np.ndarray, tokens: np.ndarray, settings: SplitSettings) -> np.ndarray:
    """Which documents (bool, [documents]) are held out, given each one's place (uint64) and tokens (int64).

    Groups with a place below the fraction are taken in their order until they hold `settings.tokens` tokens (the one
    that reaches the cap included); what is left goes to training. If that gives none, the first in line is taken, and
    the last in line always trains; a corpus of one group trains whole. `tokens` matters only below the fraction.
    """
    found = np.zeros(len(place), bool)
    line, group_of = np.unique(place, return_inverse=True)
    if settings.fraction == 0 or len(line) < 2:
        return found
    below = int(candidates(line, settings).sum())
    members = np.argsort(group_of, kind="stable")
    ends = np.cumsum(np.bincount(group_of))
    taken = 0
    for rank in range(min(max(below, 1), len(line) - 1)):
        ordinals = members[ends[rank - 1] if rank else 0 : ends[rank]]
        found[ordinals] = True
        taken += int(tokens[ordinals].sum())
        if taken >= settings.tokens:
            break
    return found
