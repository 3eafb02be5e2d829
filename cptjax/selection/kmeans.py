"""k-means in JAX over points that come a block at a time: spherical (the clusters are of directions) or Euclidean.

Lloyd's iterations. The points of a block are cut over the devices of a mesh, of one process or several; the centroids are on all
of them; products and sums are float32 whatever the points are. Spherical: Dhillon and Modha 2001, as D4 and SemDeDup cluster
(arXiv 2308.12284, 2303.09540).
"""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.selection.blocks import HIGHEST, count_rows, rows_at, unit
from cptjax.selection.kmeans_start import start_centroids
from cptjax.selection.placed_blocks import PlacedBlocks
from cptjax.sharding.processes import from_first

_AHEAD = 2  # blocks that the host reads while the devices compute


@dataclasses.dataclass(frozen=True)
class Clustering:
    """Which cluster each point is in.

    Attributes:
        centroids: float32 [clusters, dim]; spherical: of length 1.
        labels: int32 [points], the cluster of the nearest centroid; of several, the first.
        distances: float32 [points], to that centroid: 1 - cosine if spherical, else the squared Euclidean distance.
        sizes: int64 [clusters]. One that is 0 was left over: there are fewer distinct points than clusters, or the last
            iteration emptied it.
        objective: the mean distance found in each pass over the points; the last is that of `distances`.
    """

    centroids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    sizes: np.ndarray
    objective: tuple[float, ...]


def kmeans(
    points: Iterable[np.ndarray],
    clusters: int,
    start: str | Float[np.ndarray, "clusters dim"] = "k-means++",
    iterations: int = 100,
    spherical: bool = True,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> Clustering:
    """Clusters the points until none changes its cluster, or for so many iterations; then assigns them once more.

    A cluster that is empty after an iteration begins anew at the point that is farthest from its centroid (several: at the
    farthest distinct ones).

    Args:
        points: blocks [rows, dim] of any float type, gone over once an iteration (blocks.Blocks over an array or memmap).
        start: "random" (points, each as likely), "k-means++", or the first centroids.
        iterations: at most; 0: the points are only assigned to the start.
        mesh: the devices among which each block's rows are divided; None: the default device.

    Raises:
        ConfigurationError: fewer points than clusters, fewer clusters than one, an unknown start, a start of another shape,
            or blocks that can be gone over only once.
        CptjaxError: a point is not finite.
    """
    count = count_rows(points)
    if not 1 <= clusters <= count:
        raise ConfigurationError(
            f"{clusters} clusters of {count} points: from 1 cluster to as many as there are points."
        )
    centroids = start_centroids(points, count, clusters, start, spherical, seed)
    centroids = from_first(np.asarray(centroids, np.float32))
    held = PlacedBlocks(points, spherical, mesh)
    labels, objective = None, []
    for _ in range(iterations):
        found = _assigned(held, centroids)
        objective.append(float(found.distances.mean(dtype=np.float64)))
        if labels is not None and np.array_equal(found.labels, labels):
            break
        labels = found.labels
        means = np.asarray(_means(found.sums, found.counts, centroids, spherical))
        centroids = _refilled(points, found, means, spherical)
    else:
        found = _assigned(held, centroids)
        objective.append(float(found.distances.mean(dtype=np.float64)))
    return Clustering(centroids, found.labels, found.distances, found.counts.astype(np.int64), tuple(objective))


def best_kmeans(
    points: Iterable[np.ndarray],
    clusters: int,
    start: str = "k-means++",
    iterations: int = 100,
    spherical: bool = True,
    seed: int = 0,
    mesh: Mesh | None = None,
    tries: int = 10,
) -> Clustering:
    """`kmeans` with so many seeds, `seed` and others that follow from it: the clustering with the least mean distance.

    Lloyd's iterations end where they began to lead; a few clusters found once are often not the best ones, whatever the start.
    """
    seeds = [seed, *(int(each) for each in np.random.SeedSequence(seed).generate_state(tries - 1))]
    return min(
        (kmeans(points, clusters, start, iterations, spherical, each, mesh) for each in seeds),
        key=lambda found: found.objective[-1],
    )


@dataclasses.dataclass(frozen=True)
class _Pass:
    """What one pass over the points found: of each its cluster and distance, of each cluster its sum and count."""

    labels: np.ndarray
    distances: np.ndarray
    sums: np.ndarray
    counts: np.ndarray


def _assigned(held: PlacedBlocks, centroids: np.ndarray) -> _Pass:
    everywhere = None if held.mesh is None else NamedSharding(held.mesh, PartitionSpec())

    def replicated(x: np.ndarray) -> jax.Array | np.ndarray:
        return x if everywhere is None else jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index])

    means, sums = replicated(centroids), replicated(np.zeros_like(centroids))
    counts = replicated(np.zeros(len(centroids), np.int32))
    step, found, members = _step(held.spherical, held.mesh, len(centroids)), [], []
    for block, count in held:
        label, distance, sums, counts = step(block, count, means, sums, counts)
        found.append((label, distance))
        members.append(count)
        if len(found) > _AHEAD:  # waits for it: no more blocks than these are in the devices' memory
            found[-_AHEAD - 1] = jax.device_get(found[-_AHEAD - 1])
    labels, distances = (
        np.concatenate([part[:count] for part, count in zip(parts, members, strict=True)])
        for parts in zip(*jax.device_get(found), strict=True)
    )
    if not np.isfinite(distances).all():
        raise CptjaxError(
            f"point {int(np.flatnonzero(~np.isfinite(distances))[0])} (counted from 0) is not finite: clustering needs numbers.\n"
            "  Embeddings with infinities often come of float16: make them in float32, and look at that text."
        )
    return _Pass(labels, distances, np.asarray(sums), np.asarray(counts))


@functools.cache
def _step(spherical: bool, mesh: Mesh | None, clusters: int):
    """(block, how many of its rows are points, centroids, sums, counts) -> (labels, distances, sums, counts)."""

    def scattered(x: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The sum and the number of each cluster's points; labels beyond the clusters count nowhere."""
        ones = jnp.ones(len(labels), jnp.int32)
        return tuple(jax.ops.segment_sum(each, labels, clusters, mode="drop") for each in (x, ones))

    def multiplied(x: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same as a product, which accelerators are made for; a CPU takes forty times as long for it."""
        member = labels[:, None] == jnp.arange(clusters)
        sums = jnp.matmul(member.T.astype(jnp.float32), x, precision=HIGHEST)
        return sums, jnp.sum(member, axis=0, dtype=jnp.int32)

    def step(
        x: Float[Array, "rows dim"],
        held: Int[Array, ""],
        centroids: Float[Array, "clusters dim"],
        sums: Float[Array, "clusters dim"],
        counts: Int[Array, " clusters"],
    ):
        # A row for each cluster: a CPU takes the largest of many columns at once, and of a row one number after another.
        scores = jnp.matmul(centroids, x.T, precision=HIGHEST)
        if not spherical:  # |x - c|**2 is smallest where x.c - |c|**2 / 2 is largest
            scores -= jnp.sum(centroids * centroids, axis=-1, keepdims=True) / 2
        largest = jnp.max(scores, axis=0)
        # Of several the first, and 0 where a number is none. (argmax takes a CPU several times as long.)
        first = jnp.min(jnp.where(scores == largest, jnp.arange(clusters, dtype=jnp.int32)[:, None], clusters), axis=0)
        labels = jnp.where(first < clusters, first, 0)
        if spherical:
            distances = jnp.maximum(1 - largest, 0)
        else:  # from the difference: from the score it would lose its digits far from the origin
            distances = jnp.sum((x - centroids[labels]) ** 2, axis=-1)
        within = jnp.arange(len(x)) < held
        found, many = jax.lax.platform_dependent(
            jnp.where(within[:, None], x, 0),
            jnp.where(within, labels, len(centroids)),
            cpu=scattered,
            default=multiplied,
        )
        return labels, distances, sums + found, counts + many

    return jax.jit(step, out_shardings=None if mesh is None else NamedSharding(mesh, PartitionSpec()))


@functools.partial(jax.jit, static_argnames="spherical")
def _means(sums: jax.Array, counts: jax.Array, before: jax.Array, spherical: bool) -> jax.Array:
    """The centroids of the sums; that of an empty cluster, or of directions that cancel, stays where it was."""
    means = unit(sums) if spherical else sums / jnp.maximum(counts, 1)[:, None]
    stays = counts == 0
    if spherical:
        stays |= ~jnp.any(sums != 0, axis=-1)
    return jnp.where(stays[:, None], before, means)


def _refilled(points: Iterable[np.ndarray], found: _Pass, centroids: np.ndarray, spherical: bool) -> np.ndarray:
    """The centroids, those of empty clusters at the farthest points that differ from one another."""
    empty = np.flatnonzero(found.counts == 0)
    farthest = np.argsort(-found.distances, kind="stable")[: 4 * len(empty)]  # some may be copies of one another
    farthest = farthest[found.distances[farthest] > 0]
    if not len(empty) or not len(farthest):
        return centroids
    rows = rows_at(points, farthest)
    rows = np.asarray(unit(rows)) if spherical else rows
    _, first = np.unique(rows, axis=0, return_index=True)
    rows = rows[np.sort(first)]
    rows = rows[(rows != 0).any(axis=1)] if spherical else rows
    centroids = centroids.copy()
    centroids[empty[: len(rows)]] = rows[: len(empty)]
    return centroids
