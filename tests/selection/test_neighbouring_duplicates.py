"""Duplicates across clusters: what a comparison of every two points finds, for neighbours alone, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection.neighbouring_duplicates import neighbouring, with_neighbours
from cptjax.selection.semantic_duplicates import NOTHING, cluster_order, semantic_duplicates


def clustered(seed, count=90, clusters=5):
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(count, 4)).astype(np.float32)
    labels = generator.integers(clusters, size=count)
    return (
        points,
        labels,
        generator.random(count).astype(np.float32),
        generator.normal(size=(clusters, 4)).astype(np.float32),
    )


def by_definition(points, labels, distances, near):
    """Largest cosine to a point that stands earlier (farther, ties by index), in the same cluster or one that is near."""
    x = points.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = np.full(len(x), NOTHING)
    for j in range(len(x)):
        for i in range(len(x)):
            earlier = (-distances[i], i) < (-distances[j], j)
            if earlier and (labels[i] == labels[j] or tuple(sorted((labels[i], labels[j]))) in near):
                found[j] = max(found[j], x[i] @ x[j])
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]), st.sampled_from([8, 1024]))
@settings(max_examples=5)
def test_it_is_its_definition(seed, neighbours, block):
    points, labels, distances, centroids = clustered(seed)
    own = semantic_duplicates(points, labels, cluster_order(labels, distances))
    found = with_neighbours(own, points, labels, distances, centroids, neighbours=neighbours, block=block)
    near = set(neighbouring(centroids, np.bincount(labels, minlength=5) > 0, neighbours))
    np.testing.assert_allclose(found.similarity, by_definition(points, labels, distances, near), atol=2e-6)
    blocked = found.blocker >= 0
    cosines = np.sum(points[blocked] * points[found.blocker[blocked]], axis=1)
    cosines /= np.linalg.norm(points[blocked], axis=1) * np.linalg.norm(points[found.blocker[blocked]], axis=1)
    np.testing.assert_allclose(found.similarity[blocked], cosines, atol=2e-6)
    assert np.array_equal(blocked, found.similarity > NOTHING)


def test_copies_on_either_side_of_a_border_are_found():
    points = np.array([[1, 0.01], [1, -0.01], [1, 1], [1, -1]], np.float32)
    labels, distances = np.array([0, 1, 0, 1]), np.array([0.3, 0.3, 0.2, 0.2], np.float32)
    centroids = np.array([[1, 0.5], [1, -0.5]], np.float32)
    own = semantic_duplicates(points, labels, cluster_order(labels, distances))
    assert own.kept(0.01).all()
    assert with_neighbours(own, points, labels, distances, centroids).kept(0.01).tolist() == [True, False, True, True]
    with pytest.raises(ConfigurationError, match="neighbours is 0"):
        with_neighbours(own, points, labels, distances, centroids, neighbours=0)
