"""Rows of an embedding, or of a head, for another vocabulary: copied where a token is an old one, made where it is new.

    pieces     the mean of the rows of the old tokens that its text falls into    ChipNeMo, arXiv 2311.00176
    mean       the mean of all rows                                               Hewitt 2021, "Initializing New Word Embeddings"
    gaussian   drawn with the mean and the covariance of all rows                 the same; with all of the covariance
    overlap    a weighted mean of tokens that both vocabularies have              FOCUS, arXiv 2305.14481 (token_similarity.py)

Sums are float64 and rounded once, to the dtype of the table.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

METHODS = ("pieces", "mean", "gaussian", "overlap")
_BLOCK = 1 << 22  # numbers that are widened to float64 at a time

# The rows that a new one is made of, and their weights, which need not add up to one; none: all, equally.
Mixture = tuple[Sequence[int], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class NewRows:
    """How the rows of a new vocabulary are made of an old one's.

    Attributes:
        copied: [new], the old row that each is, -1 for those that are made.
        mixtures: new row -> what it is made of; a made row that is not named is the mean of all.
        known: the old rows that are tokens: what "all" means.
        drawn: made rows are drawn from a Gaussian instead, with the moments of all.
        seed: of these draws.
    """

    copied: np.ndarray
    mixtures: dict[int, Mixture]
    known: np.ndarray
    drawn: bool = False
    seed: int = 0

    def of(self, table: Shaped[np.ndarray, "old width"], number: int) -> Shaped[np.ndarray, "new width"]:
        """The new table for the old one, in its dtype; copied rows have their very bits.

        Args:
            number: of the table, so that each has draws of its own: 0 for the embedding, 1 for the head.
        """
        made = np.flatnonzero(self.copied < 0)
        new = np.empty((len(self.copied), table.shape[1]), table.dtype)
        new[self.copied >= 0] = table[self.copied[self.copied >= 0]]
        if not len(made):
            return new
        if self.drawn:
            for start, rows in _drawn(table, self.known, len(made), np.random.default_rng([self.seed, number])):
                new[made[start : start + len(rows)]] = rows
            return new
        mean = _mean(table, self.known)
        for row in made:
            ids, weights = self.mixtures.get(int(row), ((), ()))
            if len(ids):
                new[row] = np.asarray(weights, np.float64) @ table[list(ids)].astype(np.float64) / np.sum(weights)
            else:
                new[row] = mean
        return new


def _mean(table: np.ndarray, known: np.ndarray) -> Float[np.ndarray, " width"]:
    total = sum(block.sum(axis=0) for block in _blocks(table, known))
    return total / len(known)


def _drawn(table: np.ndarray, known: np.ndarray, count: int, rng: np.random.Generator):
    """(first, rows) of `count` draws with the mean and the covariance of the known rows.

    The covariance's symmetric root is taken by its eigenvalues, of which rounding makes some slightly negative where there are
    fewer rows than columns: they are zero. The root has no sign of eigenvectors to choose.
    """
    mean = _mean(table, known)
    covariance = sum(block.T @ block for block in (block - mean for block in _blocks(table, known))) / len(known)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    size = max(1, _BLOCK // table.shape[1])
    for start in range(0, count, size):
        yield start, mean + rng.standard_normal((min(size, count - start), table.shape[1])) @ root


def _blocks(table: np.ndarray, known: np.ndarray):
    """The known rows in float64, some at a time."""
    size = max(1, _BLOCK // table.shape[1])
    return (table[known[start : start + size]].astype(np.float64) for start in range(0, len(known), size))
