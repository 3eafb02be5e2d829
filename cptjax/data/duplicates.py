"""Which documents of several sets of texts are in one another: the same text, or nearly.

The same: `splits.same_text` is. Nearly: the 5-word shingles of two texts have at least a given Jaccard similarity; the
same texts count too. A pair is looked for directly, not along a chain; in a group of more than 1,000 documents, which are
almost always made from one template, a chain suffices.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from cptjax.selection.near_duplicates import groups, near_duplicate_pairs
from cptjax.selection.shingles import Shingles, jaccard

EXAMPLES = 5  # pairs kept for each two sets
LARGEST = 1000  # documents of a group that are compared one with another
_COMPARISONS = 1_000_000  # at most, in a batch of groups


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two documents (indices of all texts) that are alike. similarity: of their shingles; 1 for the same text."""

    one: int
    other: int
    similarity: float
    same: bool


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found among documents that each belong to one of several sets.

    Attributes:
        exact: bool [documents, sets], whether another document of that set has the same text; near: or nearly the same.
        examples: for two sets, the smaller index first, a few of the pairs that they share.
        chained: documents in groups too large to be compared one with another.
    """

    exact: np.ndarray
    near: np.ndarray
    examples: dict[tuple[int, int], list[Pair]]
    chained: int


def find_duplicates(
    member: np.ndarray, sets: int, texts: np.ndarray, shingles: Sequence[Shingles], threshold: float
) -> Duplicates:
    """Finds every document's duplicates in every set.

    Args:
        member: int64 [documents], the set of each, below `sets`.
        texts: uint64 [documents], `same_text` of each.
        shingles: each document's 5-word shingles; a text without any word has none, and is compared by `texts` alone.
        threshold: the Jaccard similarity from which two texts are nearly the same.

    Raises:
        ConfigurationError: a threshold outside (0, 1].
    """
    exact = _others(texts, member, sets)
    near = exact.copy()
    examples: dict[tuple[int, int], list[Pair]] = {}
    for together in _groups(texts):
        _keep_some(examples, member, [(one, other) for one, other in _first_of_each(together, member)], 1.0, True)
    label = groups(shingles, threshold)
    chained = 0
    for batch in _batches(label):
        if len(batch) > LARGEST and (label[batch] == label[batch[0]]).all():
            near[batch] |= _others(np.zeros(len(batch), np.int64), member[batch], sets)
            chained += len(batch)
            continue
        pairs = batch[near_duplicate_pairs([shingles[i] for i in batch], threshold)]
        for one, other in (pairs.T, pairs.T[::-1]):
            near[one, member[other]] = True
        for one, other in pairs[texts[pairs[:, 0]] != texts[pairs[:, 1]]].tolist():
            both = tuple(sorted((int(member[one]), int(member[other]))))
            if sum(not pair.same for pair in examples.get(both, ())) < EXAMPLES:
                _keep_some(examples, member, [(one, other)], jaccard(shingles[one], shingles[other]), False)
    return Duplicates(exact, near, examples, chained)


def _others(labels: np.ndarray, member: np.ndarray, sets: int) -> np.ndarray:
    """bool [documents, sets]: whether a set has another document of the same label."""
    found = np.zeros((len(labels), sets), bool)
    _, label, count = np.unique(labels, return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[label] > 1)
    _, label = np.unique(label[several], return_inverse=True)
    held = np.zeros((label.max(initial=-1) + 1, sets), np.int64)
    np.add.at(held, (label, member[several]), 1)
    others = held[label]
    others[np.arange(len(several)), member[several]] -= 1
    found[several] = others > 0
    return found


def _groups(labels: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of each label that occurs more than once, those that occur first before others."""
    order = np.argsort(labels, kind="stable")
    bounds = np.r_[0, np.flatnonzero(np.diff(labels[order])) + 1, len(order)] if len(order) else np.zeros(1, np.int64)
    several = [order[begin:end] for begin, end in itertools.pairwise(bounds) if end - begin > 1]
    yield from sorted(several, key=lambda group: int(group[0]))


def _batches(labels: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of whole groups, several at a time; one of more than LARGEST alone."""
    batch: list[np.ndarray] = []
    comparisons = 0
    for group in _groups(labels):
        if len(group) > LARGEST:
            yield group
            continue
        if batch and comparisons + len(group) ** 2 > _COMPARISONS:
            yield np.concatenate(batch)
            batch, comparisons = [], 0
        batch.append(group)
        comparisons += len(group) ** 2
    if batch:
        yield np.concatenate(batch)


def _first_of_each(together: np.ndarray, member: np.ndarray) -> Iterator[tuple[int, int]]:
    """Of documents that are the same a pair for every two sets, and one for each set that has two."""
    firsts: dict[int, int] = {}
    twice: set[int] = set()
    for i in together.tolist():
        mine = int(member[i])
        if mine not in firsts:
            yield from ((other, i) for other in firsts.values())
            firsts[mine] = i
        elif mine not in twice:
            twice.add(mine)
            yield firsts[mine], i


def _keep_some(
    examples: dict[tuple[int, int], list[Pair]],
    member: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    similarity: float,
    same: bool,
) -> None:
    for one, other in pairs:
        if member[one] > member[other]:
            one, other = other, one
        kept = examples.setdefault((int(member[one]), int(member[other])), [])
        if sum(pair.same == same for pair in kept) < EXAMPLES:
            kept.append(Pair(one, other, similarity, same))
