"""Semantic duplicates that k-means has put into different clusters: looked for in the clusters nearest to each.

Neither SemDeDup nor D4 does it: what lies on both sides of a border between clusters stays twice (arXiv 2303.09540).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cptjax.errors import ConfigurationError
from cptjax.selection.blocks import HIGHEST, padded, unit
from cptjax.selection.semantic_duplicates import NOTHING, Blocking, place_in_line


def with_neighbours(
    blocking: Blocking,
    points: Float[np.ndarray, "points dim"],
    labels: Int[np.ndarray, " points"],
    distances: Float[np.ndarray, " points"],
    centroids: Float[np.ndarray, "clusters dim"],
    keep: str = "hard",
    seed: int = 0,
    neighbours: int = 1,
    block: int = 1024,
) -> Blocking:
    """What blocks each point, by the official rule, where those of neighbouring clusters block too.

    Two clusters are neighbours if one of them is among the `neighbours` nearest of the other. Over all clusters the points
    stand in one line, by the same rule as within each (`semantic_duplicates.cluster_order`), ties by index; earlier ones block.

    Memory: blocks of similarities; work: of each two neighbours the product of their sizes, times dim.

    Args:
        blocking: of each cluster by itself, in the same order.

    Raises:
        ConfigurationError: fewer neighbours than one.
    """
    if neighbours < 1:
        raise ConfigurationError(f"neighbours is {neighbours}; it is at least 1, or 0 where none are looked at.")
    line = np.empty(len(labels), np.int64)
    line[np.lexsort((np.arange(len(labels)), place_in_line(distances, keep, seed)))] = np.arange(len(labels))
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(len(centroids) + 1))
    similarity, blocker = blocking.similarity.copy(), blocking.blocker.copy()
    for one, other in neighbouring(centroids, np.diff(bounds) > 0, neighbours):
        mine, theirs = (order[bounds[c] : bounds[c + 1]] for c in (one, other))
        for columns, rows in ((mine, theirs), (theirs, mine)):
            _block(similarity, blocker, points, line, columns, rows, block)
    return Blocking(similarity, blocker)


def neighbouring(centroids: np.ndarray, held: np.ndarray, neighbours: int) -> list[tuple[int, int]]:
    """Pairs of clusters that hold a point (bool) and of which one is among the nearest of the other, each once, sorted."""
    clusters = np.flatnonzero(held)
    if len(clusters) < 2:
        return []
    directions = np.asarray(unit(centroids[clusters]))
    pairs = set()
    for i, row in enumerate(directions):
        cosines = directions @ row
        cosines[i] = -np.inf
        for j in np.argsort(-cosines, kind="stable")[: min(neighbours, len(clusters) - 1)]:
            pairs.add((int(clusters[min(i, j)]), int(clusters[max(i, j)])))
    return sorted(pairs)


def _block(
    similarity: np.ndarray,
    blocker: np.ndarray,
    points: np.ndarray,
    line: np.ndarray,
    columns: np.ndarray,
    rows: np.ndarray,
    block: int,
) -> None:
    """Writes into both what of `rows` blocks `columns` more than what did so far."""
    # Powers of two: a few programs serve the clusters of all sizes.
    high, wide = (min(block, max(64, 1 << (len(each) - 1).bit_length())) for each in (rows, columns))
    for first in range(0, len(columns), wide):
        mine = columns[first : first + wide]
        vectors, places = padded(points[mine], wide), padded(line[mine], wide)
        for begin in range(0, len(rows), high):
            theirs = rows[begin : begin + high]
            # What fills a block stands behind everything, and blocks nothing.
            behind = np.full(high, len(line), np.int64)
            behind[: len(theirs)] = line[theirs]
            found, at = _most_similar_before(padded(points[theirs], high), behind, vectors, places)
            found, at = np.asarray(found)[: len(mine)], np.asarray(at)[: len(mine)]
            closer = found > similarity[mine]
            blocker[mine[closer]] = theirs[at[closer]]
            similarity[mine] = np.maximum(similarity[mine], found)


@jax.jit
def _most_similar_before(
    rows: Float[Array, "rows dim"],
    row_places: Int[Array, " rows"],
    columns: Float[Array, "columns dim"],
    column_places: Int[Array, " columns"],
) -> tuple[Float[Array, " columns"], Int[Array, " columns"]]:
    """Of each column the largest cosine to a row that stands before it, and that row; of several, the first."""
    cosines = jnp.clip(jnp.matmul(unit(rows), unit(columns).T, precision=HIGHEST), -1, 1)
    found = jnp.where(row_places[:, None] < column_places[None], cosines, NOTHING)
    return jnp.max(found, axis=0), jnp.argmax(found, axis=0)
