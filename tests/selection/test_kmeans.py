"""k-means against Lloyd's iterations in NumPy and float64, over blocks, a memmap and a mesh; its starts; empty clusters."""

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh

from cptjax.benchmarks.kmeans import by_faiss, example, objective
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.selection.blocks import Blocks, rows_at, unit
from cptjax.selection.kmeans import best_kmeans, kmeans
from cptjax.selection.kmeans_start import drawn_by_weight, spread_points

SEEDS = st.integers(0, 2**32 - 1)


def lengthened(x, spherical):
    return x / np.linalg.norm(x, axis=-1, keepdims=True) if spherical else x


def reference(points, centroids, iterations, spherical):
    """Lloyd in float64: (centroids, labels, distances, smallest margin between the nearest and the next centroid)."""
    points, centroids = (lengthened(each.astype(np.float64), spherical) for each in (points, centroids))
    margin = np.inf
    for i in range(iterations + 1):
        squares = ((points[:, None] - centroids) ** 2).sum(-1) / (2 if spherical else 1)
        labels, nearest = squares.argmin(1), np.sort(squares, axis=1)
        margin = min(margin, (nearest[:, 1] - nearest[:, 0]).min())
        if i == iterations:
            return centroids, labels, nearest[:, 0], margin
        for k in range(len(centroids)):
            assume((labels == k).any())  # what becomes of an empty cluster is tested below
            centroids[k] = lengthened(points[labels == k].mean(0), spherical)


@given(SEEDS, st.sampled_from([1, 3]), st.booleans(), st.sampled_from([7, 60]))
@settings(max_examples=25)
def test_the_clusters_are_those_of_lloyds_iterations(seed, iterations, spherical, rows):
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(60, 5)).astype(np.float32)
    start = points[generator.choice(60, 6, replace=False)]
    centroids, labels, distances, margin = reference(points, start, iterations, spherical)
    assume(margin > 1e-5)
    found = kmeans(Blocks(points, rows), 6, start, iterations, spherical)
    assert np.array_equal(found.labels, labels) and np.array_equal(found.sizes, np.bincount(labels, minlength=6))
    np.testing.assert_allclose(found.centroids, centroids, atol=2e-6)
    np.testing.assert_allclose(found.distances, distances, atol=2e-6)
    assert found.objective[-1] == pytest.approx(distances.mean(), abs=1e-6)


def mixture(count, clusters, dim, seed=0):
    generator = np.random.default_rng(seed)
    centers = 3 * generator.normal(size=(clusters, dim))
    return (centers[np.arange(count) % clusters] + generator.normal(size=(count, dim)) / 4).astype(np.float32)


def test_of_several_tries_the_one_with_the_least_distance_is_kept():
    """Four groups, the first two near each other: one try in three or so puts two centroids into one group and stays there."""
    points = np.asarray([[0, 0], [0, 4], [20, 0], [20, 4]], np.float32).repeat(25, axis=0)
    points += np.random.default_rng(0).normal(size=points.shape).astype(np.float32) / 2
    blocks = Blocks(points, 40)
    first = kmeans(blocks, 4, "random", spherical=False, seed=5)
    found = best_kmeans(blocks, 4, "random", spherical=False, seed=5)
    assert first.objective[-1] > 2 * found.objective[-1] and sorted(found.sizes) == [25] * 4
    assert np.array_equal(best_kmeans(blocks, 4, "random", spherical=False, seed=5, tries=1).labels, first.labels)


@pytest.mark.parametrize("spherical", [True, False])
def test_the_devices_of_a_mesh_find_what_one_device_finds(spherical):
    points = mixture(515, 7, 6)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("replica", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    one, all_ = (kmeans(Blocks(points, 100), 7, "random", 10, spherical, mesh=each) for each in (None, mesh))
    assert mesh.size == 8 and np.array_equal(one.labels, all_.labels)
    np.testing.assert_allclose(one.centroids, all_.centroids, atol=1e-6)


def test_a_memmap_of_float16_read_in_blocks_is_clustered_as_its_values_are(tmp_path):
    points = mixture(500, 7, 6).astype(np.float16)
    points.tofile(tmp_path / "points")
    stored = np.memmap(tmp_path / "points", np.float16, "r", shape=(500, 6))
    whole, blocks = (
        kmeans(each, 7, "random", 10) for each in (Blocks(points.astype(np.float32), 500), Blocks(stored, 64))
    )
    assert np.array_equal(whole.labels, blocks.labels)
    np.testing.assert_allclose(whole.centroids, blocks.centroids, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 3 * 64 * 6 * 4, 1 << 30])
def test_what_stays_on_the_devices_between_passes_is_what_was_read(monkeypatch, kept):
    """Nothing, three blocks of eight, or all: the clusters are the same, and what stays is not read again."""
    read = []

    class Counted(Blocks):
        def __iter__(self):
            for block in super().__iter__():
                read.append(len(block))
                yield block

    points = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    expected = kmeans(Blocks(points, 64), 7, points[:7], 4)
    monkeypatch.setattr("cptjax.selection.placed_blocks._KEPT", kept)
    found = kmeans(Counted(points, 64), 7, points[:7], 4)
    assert np.array_equal(found.labels, expected.labels) and np.array_equal(found.centroids, expected.centroids)
    assert len(found.objective) == 5
    # Counted once and looked at for its width; then read by the first pass of five, or by all.
    assert len(read) == 8 + 1 + (8 if kept == 1 << 30 else 40)


def test_sums_are_float32_where_the_points_are_float16():
    points = (1000 + np.random.default_rng(0).normal(size=(5000, 2))).astype(np.float16)  # their sum is beyond float16
    found = kmeans(Blocks(points, 512), 1, "random", 2, spherical=False)
    np.testing.assert_allclose(found.centroids[0], points.astype(np.float64).mean(0), rtol=1e-6)


@pytest.mark.parametrize("start", ["random", "k-means++"])
@pytest.mark.parametrize("spherical", [True, False])
def test_a_start_is_of_points_and_does_not_depend_on_the_blocks(start, spherical):
    points = mixture(100, 7, 6)
    found = [kmeans(Blocks(points, rows), 9, start, 0, spherical, seed=3) for rows in (100, 30)]
    assert np.array_equal(found[0].centroids, found[1].centroids)
    rows = {tuple(each) for each in np.asarray(unit(points) if spherical else points)}
    assert {tuple(each) for each in found[0].centroids} <= rows and len(
        {tuple(each) for each in found[0].centroids}
    ) == 9
    other = kmeans(Blocks(points, 30), 9, start, 0, spherical, seed=4)
    assert not np.array_equal(found[0].centroids, other.centroids)


def test_k_means_plus_plus_chooses_by_the_squared_distance():
    points = np.array([[0.0], [1.0], [3.0], [3.0]], np.float32)
    keys = jax.random.split(jax.random.key(0), 6000)
    first, second = np.asarray(jax.vmap(lambda key: spread_points(points, 2, key))(keys)).T
    for begin, squares in {0: [0, 1, 9, 9], 1: [1, 0, 4, 4], 2: [9, 4, 0, 0]}.items():
        seen = np.bincount(second[first == begin], minlength=4)
        assert 1350 < seen.sum() < 1650  # 1,500 and four and a half standard deviations
        np.testing.assert_allclose(seen / seen.sum(), np.array(squares) / sum(squares), atol=0.06)


def test_an_index_is_drawn_by_its_weight_in_whichever_row_it_stands():
    weights = np.zeros(1500, np.float32)
    weights[[0, 511, 512, 1499]] = [1, 2, 4, 1]
    keys = jax.random.split(jax.random.key(1), 2000)
    drawn = np.asarray(jax.vmap(lambda key: drawn_by_weight(weights, key))(keys))
    seen = np.bincount(drawn, minlength=1500)
    assert set(np.flatnonzero(seen)) == {0, 511, 512, 1499}
    np.testing.assert_allclose(seen[[0, 511, 512, 1499]] / 2000, weights[weights > 0] / 8, atol=0.05)


def test_k_means_plus_plus_leaves_no_direction_out_while_there_are_copies():
    points = np.repeat(np.eye(5, dtype=np.float32), [50, 40, 1, 1, 1], axis=0)
    found = kmeans(Blocks(points), 5, "k-means++", 0)
    assert sorted(found.sizes) == [1, 1, 1, 40, 50] and found.objective[-1] == pytest.approx(0, abs=1e-6)


@given(SEEDS, st.booleans())
@settings(max_examples=12)
def test_no_cluster_stays_empty_while_points_differ(seed, spherical):
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(60, 5)).astype(np.float32)
    start = np.repeat(points[:1], 6, axis=0)  # all at one point: the first takes everything
    found = kmeans(Blocks(points, 60), 6, start, 50, spherical)
    assert (found.sizes > 0).all() and found.sizes.sum() == 60


def test_more_clusters_than_distinct_points_leave_some_empty():
    points = np.repeat(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32), 20, axis=0)
    found = kmeans(Blocks(points), 6, "random", 20)
    assert (found.sizes > 0).sum() == 3 and found.objective[-1] == pytest.approx(0, abs=1e-6)


def test_the_objective_never_rises_and_the_end_is_a_fixed_point():
    points = mixture(400, 12, 4, seed=2)
    found = kmeans(Blocks(points, 128), 12, "random", 100)
    assert len(found.objective) < 100 and (np.diff(found.objective) < 1e-7).all()
    again = kmeans(Blocks(points, 128), 12, found.centroids, 1)
    assert np.array_equal(again.labels, found.labels)


def test_a_vector_of_zeros_has_no_direction_and_breaks_nothing():
    points = mixture(60, 3, 5)
    points[[5, 17]] = 0
    found = kmeans(Blocks(points), 6, "random", 20)
    assert np.isfinite(found.centroids).all() and np.array_equal(found.distances[[5, 17]], [1, 1])


def test_rows_are_found_again_in_their_blocks():
    points = mixture(50, 3, 4)
    chosen = np.array([49, 3, 3, 0, 17])
    assert np.array_equal(rows_at(Blocks(points, 8), chosen), points[chosen])
    assert np.array_equal(rows_at(Blocks(points, 2, chosen), np.array([4, 1])), points[[17, 3]])


def test_what_cannot_be_clustered_is_refused():
    points = mixture(50, 3, 4)
    with pytest.raises(ConfigurationError, match="51 clusters of 50 points"):
        kmeans(Blocks(points), 51)
    with pytest.raises(ConfigurationError, match="iterator"):
        kmeans(iter(Blocks(points)), 5)
    with pytest.raises(ConfigurationError, match="'kmeans'; it is one of random, k-means"):
        kmeans(Blocks(points), 5, "kmeans")
    with pytest.raises(ConfigurationError, match=r"shape \(2, 4\) for 5 clusters of 4"):
        kmeans(Blocks(points), 5, points[:2])
    points[31, 2] = np.inf
    with pytest.raises(CptjaxError, match="point 31 "):
        kmeans(Blocks(points, 16), 5, points[:5], 0)


def test_the_objective_is_faisss_from_the_same_start():
    pytest.importorskip("faiss", reason="the peer is faiss-cpu")
    x, start = example(4000, 16, 20, 20, 4000, seed=3)
    found = kmeans(Blocks(x, 1024), 20, start, 8)
    theirs = objective(x, by_faiss(x, start, 8))
    assert found.objective[-1] == pytest.approx(theirs, rel=0.01)
    assert objective(x, found.centroids) == pytest.approx(found.objective[-1], rel=1e-4)
