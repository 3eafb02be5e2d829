"""Which documents are held out: decided by the text itself, so that equal texts always fall on the same side.

A group is all documents whose text is the same after Unicode NFKC, case folding and whitespace folding. The group's
hash, a number in [0, 1), is its place in line for the validation split. (PROTOCOL 6: a split by document id leaks.)
"""

import dataclasses
import hashlib
import unicodedata

import numpy as np

from cptjax.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class SplitSettings:
    """How much to hold out: groups with a hash below `fraction`, until they hold `tokens` tokens."""

    fraction: float = 0.05
    tokens: int = 2**18

    def __post_init__(self):
        if not 0 <= self.fraction <= 0.5:
            raise ConfigurationError(f"validation_fraction is {self.fraction}; it must lie between 0 and 0.5.")
        if self.tokens < 1:
            raise ConfigurationError(
                f"validation_tokens is {self.tokens}; it must be at least 1.\n"
                "  To hold nothing out, set validation_fraction = 0."
            )


def text_group(text: str) -> int:
    """The group of a text, as 64 bits of a sha256; divided by 2**64 it is uniform in [0, 1)."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return int.from_bytes(hashlib.sha256(folded.encode()).digest()[:8], "little")


def held_out(groups: np.ndarray, tokens: np.ndarray, settings: SplitSettings) -> np.ndarray:
    """Which documents (bool, [documents]) are held out, given each one's group (uint64) and tokens (int64).

    Groups with a hash below the fraction are taken in the order of their hashes until they hold `settings.tokens`
    tokens (the one that reaches the cap included); what is left goes to training. If that gives none, the first in
    line is taken, and the last in line always trains; a corpus of one group trains whole. `tokens` matters only below
    the fraction.
    """
    found = np.zeros(len(groups), bool)
    line, group_of = np.unique(groups, return_inverse=True)
    if settings.fraction == 0 or len(line) < 2:
        return found
    below = int(np.searchsorted(line, np.uint64(min(settings.fraction * 2.0**64, 2.0**64 - 2048))))
    members = np.argsort(group_of, kind="stable")
    ends = np.cumsum(np.bincount(group_of))
    taken = 0
    for place in range(min(max(below, 1), len(line) - 1)):
        ordinals = members[ends[place - 1] if place else 0 : ends[place]]
        found[ordinals] = True
        taken += int(tokens[ordinals].sum())
        if taken >= settings.tokens:
            break
    return found
