"""k-means by us and by faiss-cpu, from the same start over the same points, as many iterations, all cores; taking turns.

Timed are whole iterations: assignment, sums, new centroids. Ours goes over the points once more, to assign them to the last
centroids, which theirs does not; that is in its time. What it takes to compile, once, is told apart.
"""

import statistics
import time
from typing import Any

import numpy as np

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.selection.blocks import Blocks
from cptjax.selection.kmeans import kmeans

GROWTH = (2, 4)  # times the points, and times the clusters, for how the time grows


def kmeans_peer(
    points: float = 200_000, dim: float = 128, clusters: float = 448, iterations: float = 10, repeats: float = 3
) -> dict[str, Any]:
    """Times both, spherical, on random points around random centres.

    Returns:
        Medians of seconds, `ratio` (theirs over ours: 1 is as fast, 0.5 half as fast), the mean distance that either ends with,
        our seconds at twice and four times the points, and the clusters, and the exponents with which they grow: 1 is linear.
        (Fewer points than the first may lie in the processor's caches, which says nothing of more.)
    """
    import faiss

    points, dim, clusters, iterations, repeats = (
        whole_number(value, name, minimum=1)
        for value, name in (
            (points, "POINTS"),
            (dim, "DIM"),
            (clusters, "CLUSTERS"),
            (iterations, "ITERATIONS"),
            (repeats, "REPEATS"),
        )
    )
    most = max(GROWTH)
    if most * clusters > points:
        raise ConfigurationError(
            f"CLUSTERS = {clusters:,} is too many for POINTS = {points:,}: {most} times as many are timed."
        )
    all_points, all_starts = example(most * points, dim, clusters, most * clusters, points)
    x, start = all_points[:points], all_starts[:clusters]

    def ours(x: np.ndarray, start: np.ndarray) -> tuple[float, np.ndarray]:
        begin = time.perf_counter()
        found = kmeans(Blocks(x), len(start), start, iterations)
        return time.perf_counter() - begin, found.centroids

    def theirs() -> tuple[float, np.ndarray]:
        begin = time.perf_counter()
        centroids = by_faiss(x, start, iterations)
        return time.perf_counter() - begin, centroids

    first, _ = ours(x, start)
    turns = [(ours(x, start), theirs()) for _ in range(repeats)]
    mine, yours = (statistics.median(turn[side][0] for turn in turns) for side in (0, 1))

    sizes = [(points, clusters), *((n * points, clusters) for n in GROWTH), *((points, n * clusters) for n in GROWTH)]
    parts = [(all_points[:n], all_starts[:k]) for n, k in sizes]
    for part in parts[1:]:
        ours(*part)  # compiles
    timed = [
        [ours(*part)[0] for part in parts] for _ in range(repeats)
    ]  # in turns: what slows the machine slows all sizes
    seconds = dict(zip(sizes, (statistics.median(each) for each in zip(*timed, strict=True)), strict=True))
    by_points = {n: spent for (n, k), spent in seconds.items() if k == clusters}
    by_clusters = {k: spent for (n, k), spent in seconds.items() if n == points}
    return {
        "points": points,
        "dim": dim,
        "clusters": clusters,
        "iterations": iterations,
        "seconds_ours": mine,
        "seconds_ours_first": first,
        "seconds_faiss": yours,
        "ratio": yours / mine,
        "gflops_per_second_ours": 2e-9 * points * dim * clusters * (iterations + 1) / mine,
        "objective_ours": objective(x, turns[0][0][1]),
        "objective_faiss": objective(x, turns[0][1][1]),
        **{f"seconds_at_{size}_points": seconds for size, seconds in by_points.items()},
        **{f"seconds_at_{size}_clusters": seconds for size, seconds in by_clusters.items()},
        "exponent_in_points": _exponent(by_points),
        "exponent_in_clusters": _exponent(by_clusters),
        "faiss": faiss.__version__,
    }


def _exponent(seconds: dict[int, float]) -> float:
    """The slope of the logarithm of the time over that of the size: 1 is linear, 2 would be quadratic."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def example(
    points: int, dim: int, centres: int, starts: int, among: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Points of length 1 around random centres, and as many of the first `among` of them to start from."""
    generator = np.random.default_rng(seed)
    middles = generator.standard_normal((centres, dim), np.float32)
    x = middles[generator.integers(centres, size=points)] + generator.standard_normal((points, dim), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, x[generator.choice(among, starts, replace=False)]


def by_faiss(x: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """faiss's centroids after so many iterations of spherical k-means, over all points."""
    import faiss

    clustering = faiss.Clustering(x.shape[1], len(start))
    clustering.niter, clustering.spherical = iterations, True
    clustering.max_points_per_centroid = len(x)  # it would draw 256 for each otherwise
    clustering.min_points_per_centroid = 1
    faiss.copy_array_to_vector(start.ravel(), clustering.centroids)
    clustering.train(x, faiss.IndexFlatIP(x.shape[1]))
    return faiss.vector_to_array(clustering.centroids).reshape(start.shape)


def objective(x: np.ndarray, centroids: np.ndarray, rows: int = 8192) -> float:
    """The mean over points (of length 1) of 1 - the cosine to the nearest centroid."""
    found = [(x[first : first + rows] @ centroids.T).max(axis=1) for first in range(0, len(x), rows)]
    return float(1 - np.concatenate(found).mean(dtype=np.float64))
