"""SemDeDup: within each cluster, what is too similar to something before it (Abbas et al. 2023, arXiv 2303.09540).

The rule of the official code: the members of a cluster stand in an order, by default those least similar to the centroid
first, and each goes whose cosine similarity to any earlier one is above 1 - epsilon, *even if that earlier one goes too*. Of a
chain a - b - c, where a and c are not alike, it keeps a alone. The greedy rule, where only what is kept blocks, keeps a and c.
A larger epsilon removes more. Members of different clusters are never compared.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cptjax.errors import ConfigurationError
from cptjax.selection.blocks import HIGHEST, padded, unit

KEEP = ("hard", "easy", "random")
NOTHING = -2.0  # the similarity to earlier members where there are none: below any cosine
_SMALLEST = 64  # rows that a block is padded to at least, so that small clusters share one program


@dataclasses.dataclass(frozen=True)
class Blocking:
    """Of each point the most similar one that may block it.

    Attributes:
        similarity: float32 [points], the largest cosine similarity to an earlier member of its cluster, at most 1; NOTHING for
            the first of each.
        blocker: int64 [points], that member (of several, the first in order); -1 where there is none.
    """

    similarity: np.ndarray
    blocker: np.ndarray

    def kept(self, epsilon: float) -> Bool[np.ndarray, " points"]:
        """Which points stay at this epsilon. (For a share that is to be hit exactly: budgets.smallest of `similarity`.)"""
        return self.similarity <= np.float32(1 - epsilon)


def cluster_order(
    labels: Int[np.ndarray, " points"], distances: Float[np.ndarray, " points"], keep: str = "hard", seed: int = 0
) -> Int[np.ndarray, " points"]:
    """All points by cluster, and in each cluster in the order in which they come; ties by index.

    keep: which of several that are alike stays: "hard", the farthest from the centroid (the official default), "easy", the
    closest, or "random", whichever a shuffle with `seed` puts first.

    Raises:
        ConfigurationError: another `keep`.
    """
    return np.lexsort((place_in_line(distances, keep, seed), labels))


def place_in_line(distances: Float[np.ndarray, " points"], keep: str, seed: int) -> Float[np.ndarray, " points"]:
    """What points stand in order of, the smallest first; see `cluster_order`."""
    if keep not in KEEP:
        raise ConfigurationError(f"keep is {keep!r}; it is one of {', '.join(KEEP)}.")
    if keep == "random":
        return np.random.default_rng(seed).random(len(distances))
    return -distances if keep == "hard" else distances


def semantic_duplicates(
    points: Float[np.ndarray, "points dim"],
    labels: Int[np.ndarray, " points"],
    order: Int[np.ndarray, " points"],
    block: int = 1024,
) -> Blocking:
    """What blocks each point by the official rule, whatever epsilon will be.

    Memory: blocks of at most `block` x `block` similarities and 2 x `block` vectors, however large a cluster is. Work: the
    sum of the squares of the clusters' sizes, times dim.

    Args:
        points: an array or memmap of any float type; rows need not be of length 1.
        labels: the cluster of each.
        order: of `cluster_order`.
    """
    return _by_cluster(points, labels, order, block, _after_all)


def greedy_duplicates(
    points: Float[np.ndarray, "points dim"],
    labels: Int[np.ndarray, " points"],
    order: Int[np.ndarray, " points"],
    epsilon: float,
    block: int = 1024,
) -> Blocking:
    """The same by the greedy rule: only those blocks that are kept at this epsilon, for which alone it holds."""
    return _by_cluster(points, labels, order, block, functools.partial(_after_kept, threshold=np.float32(1 - epsilon)))


# From a block's vectors (padded with rows of zeros) and its members' largest similarity to earlier blocks: the largest of both,
# the member of the block that it comes from (-1: of an earlier block), and which members may block what follows.
_Within = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _by_cluster(points: np.ndarray, labels: np.ndarray, order: np.ndarray, block: int, within: _Within) -> Blocking:
    if block < 1:
        raise ConfigurationError(f"blocks of {block} members: a block has at least one.")
    similarity = np.full(len(labels), NOTHING, np.float32)
    blocker = np.full(len(labels), -1, np.int64)
    bounds = np.flatnonzero(np.diff(labels[order])) + 1
    for members in np.split(order, bounds) if len(order) else []:
        if len(members) == 1:
            continue
        # Powers of two: a few programs serve the clusters of all sizes.
        rows = min(block, max(_SMALLEST, 1 << (len(members) - 1).bit_length()))
        earlier = np.zeros(0, np.int64)
        for first in range(0, len(members), rows):
            mine = members[first : first + rows]
            vectors = padded(points[mine], rows)
            best, who = np.full(len(mine), NOTHING, np.float32), np.full(len(mine), -1, np.int64)
            for begin in range(0, len(earlier), rows):
                theirs = earlier[begin : begin + rows]
                found, at = _most_similar(padded(points[theirs], rows), len(theirs), vectors)
                found, at = np.asarray(found)[: len(mine)], theirs[np.asarray(at)[: len(mine)]]
                closer = found > best
                best, who = np.where(closer, found, best), np.where(closer, at, who)
            best, inside, blocks = within(vectors, best)
            similarity[mine] = best
            blocker[mine] = np.where(inside >= 0, mine[inside], who)
            earlier = np.append(earlier, mine[blocks])
    return Blocking(similarity, blocker)


def _after_all(vectors: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every member blocks those after it."""
    largest, at = (np.asarray(each)[: len(best)] for each in _most_similar_earlier(vectors))
    # A member of an earlier block that is as similar stands first.
    closer = largest > best
    return np.where(closer, largest, best), np.where(closer, at, -1), np.ones(len(best), bool)


def _after_kept(
    vectors: np.ndarray, best: np.ndarray, threshold: np.float32
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A member blocks those after it if nothing blocks it."""
    own = np.asarray(_similarities(vectors, vectors))[: len(best), : len(best)]
    best, inside, kept = best.copy(), np.full(len(own), -1), np.zeros(len(own), bool)
    for j in range(len(own)):
        candidates = np.flatnonzero(kept[:j])
        if len(candidates):
            most = candidates[own[candidates, j].argmax()]
            if own[most, j] > best[j]:
                best[j], inside[j] = own[most, j], most
        kept[j] = best[j] <= threshold
    return best, inside, kept


@jax.jit
def _similarities(one: Float[Array, "rows dim"], other: Float[Array, "columns dim"]) -> Float[Array, "rows columns"]:
    """The cosine of each two, between -1 and 1."""
    return jnp.clip(jnp.matmul(unit(one), unit(other).T, precision=HIGHEST), -1, 1)


@jax.jit
def _most_similar(
    rows: Float[Array, "rows dim"], held: Int[Array, ""], columns: Float[Array, "columns dim"]
) -> tuple[Float[Array, " columns"], Int[Array, " columns"]]:
    """Of each column the largest cosine to one of the first `held` rows, and that row; of several, the first."""
    return _largest(jnp.where((jnp.arange(len(rows)) < held)[:, None], _similarities(rows, columns), NOTHING))


@jax.jit
def _most_similar_earlier(vectors: Float[Array, "rows dim"]) -> tuple[Float[Array, " rows"], Int[Array, " rows"]]:
    """Of each row the largest cosine to one before it, and that one; of several, the first."""
    place = jnp.arange(len(vectors))
    return _largest(jnp.where(place[:, None] < place, _similarities(vectors, vectors), NOTHING))


def _largest(found: Float[Array, "rows columns"]) -> tuple[Float[Array, " columns"], Int[Array, " columns"]]:
    """The largest number of each column, and its row; of several, the first. (argmax takes a CPU several times as long.)"""
    largest, rows = jnp.max(found, axis=0), jnp.arange(len(found), dtype=jnp.int32)[:, None]
    return largest, jnp.minimum(jnp.min(jnp.where(found == largest, rows, len(found)), axis=0), len(found) - 1)
