"""k-means by us and by faiss-cpu, from the same start over the same points, as many iterations, all cores; taking turns.

Timed are whole iterations: assignment, sums, new centroids. Ours goes over the points once more, to assign them to the last
centroids, which theirs does not; that is in its time. What it takes to compile, once, is told apart.
"""

import statistics
import time
from typing import Any

import numpy as np

from cptjax.configuration.values import whole_number
from cptjax.selection.blocks import Blocks
from cptjax.selection.kmeans import kmeans


def kmeans_peer(
    points: float = 200_000, dim: float = 128, clusters: float = 448, iterations: float = 10, repeats: float = 3
) -> dict[str, Any]:
    """Times both, spherical, on random points around random centres.

    Returns:
        Medians of seconds, `ratio` (theirs over ours: 1 is as fast, 0.5 half as fast), the mean distance that either ends with,
        our seconds at a quarter and half of the points and of the clusters, and the exponents with which they grow: 1 is linear.
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
    x, start = example(points, dim, clusters)

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

    def at(points: int, clusters: int) -> float:
        part = x[:points], start[:clusters]
        ours(*part)  # compiles
        return statistics.median(ours(*part)[0] for _ in range(repeats))

    shares = (4, 2)
    by_points = {points // share: at(points // share, clusters) for share in shares} | {points: mine}
    by_clusters = {clusters // share: at(points, clusters // share) for share in shares} | {clusters: mine}
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


def example(points: int, dim: int, clusters: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of length 1 around as many random centres as there are clusters, and a start: some of the points."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((clusters, dim), np.float32)
    x = centres[generator.integers(clusters, size=points)] + generator.standard_normal((points, dim), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, x[generator.choice(points, clusters, replace=False)]


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
