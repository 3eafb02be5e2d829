"""SemDeDup's two rules against their definitions, and what tells them apart."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection.budgets import Budget, smallest, threshold_of
from cptjax.selection.semantic_duplicates import (
    KEEP,
    NOTHING,
    _similarities,
    cluster_order,
    greedy_duplicates,
    semantic_duplicates,
)

ALL = np.zeros(3, np.int64)


def directions(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_of_a_chain_the_official_rule_keeps_the_first_and_the_greedy_rule_its_ends():
    chain = directions(0, 10, 20)  # each near the one before it, the ends apart
    epsilon = 1 - np.cos(np.deg2rad(15))
    official = semantic_duplicates(chain, ALL, np.arange(3))
    assert official.kept(epsilon).tolist() == [True, False, False]
    assert official.blocker.tolist() == [-1, 0, 1]  # the second blocks the third although it goes
    assert greedy_duplicates(chain, ALL, np.arange(3), epsilon).kept(epsilon).tolist() == [True, False, True]


def test_a_larger_epsilon_removes_more():
    found = semantic_duplicates(directions(0, 10, 30), ALL, np.arange(3))
    assert [found.kept(epsilon).sum() for epsilon in (0.001, 0.02, 0.1)] == [3, 2, 1]


def test_who_stays_is_the_hardest_or_the_easiest_and_of_equals_the_first():
    labels = np.array([1, 0, 1, 0, 1])
    distances = np.array([0.1, 0.5, 0.3, 0.5, 0.2], np.float32)
    assert cluster_order(labels, distances).tolist() == [1, 3, 2, 4, 0]
    assert cluster_order(labels, distances, "easy").tolist() == [1, 3, 0, 4, 2]
    shuffled = [cluster_order(labels, distances, "random", seed).tolist() for seed in range(20)]
    assert all(set(each[:2]) == {1, 3} for each in shuffled) and len(set(map(tuple, shuffled))) > 5
    with pytest.raises(ConfigurationError, match="keep is 'soft'; it is one of hard, easy, random"):
        cluster_order(labels, distances, "soft")


@st.composite
def corpora(draw):
    """Points of four dimensions, some of them near copies of others, in a few clusters; with their distances."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, clusters = draw(st.integers(1, 40)), draw(st.integers(1, 3))
    points = generator.normal(size=(count, 4))
    copies = generator.random(count) < 0.4
    points[copies] = points[generator.integers(0, count, copies.sum())] + generator.normal(size=(copies.sum(), 4)) / 20
    points *= generator.uniform(0.1, 10, (count, 1))
    return points.astype(np.float32), generator.integers(0, clusters, count), generator.random(count).astype(np.float32)


def by_definition(points, labels, distances, keep, epsilon=None):
    """M by the official rule (epsilon None), or by the greedy one, with two loops in float64; and the smallest |M - threshold|."""
    points = points.astype(np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    similarity, margin = np.full(len(points), NOTHING), np.inf
    for cluster in set(labels.tolist()):
        members = [i for i in range(len(points)) if labels[i] == cluster]
        members.sort(key=lambda i: (-distances[i] if keep == "hard" else distances[i], i))
        blocks = []
        for j in members:
            similarity[j] = max([float(points[i] @ points[j]) for i in blocks], default=NOTHING)
            if epsilon is None or similarity[j] <= 1 - epsilon:
                blocks.append(j)
            if epsilon is not None:
                margin = min(margin, abs(similarity[j] - (1 - epsilon)))
    return similarity, margin


@given(corpora(), st.sampled_from(["hard", "easy"]), st.sampled_from([4, 1024]))
@settings(max_examples=40)
def test_the_official_rule_is_its_definition(corpus, keep, block):
    points, labels, distances = corpus
    found = semantic_duplicates(points, labels, cluster_order(labels, distances, keep), block)
    similarity, _ = by_definition(points, labels, distances, keep)
    np.testing.assert_allclose(found.similarity, similarity, atol=2e-6)
    blocked = found.blocker >= 0
    assert np.array_equal(blocked, similarity > NOTHING)
    assert np.array_equal(labels[found.blocker[blocked]], labels[blocked])
    theirs = points[found.blocker[blocked]].astype(np.float64)
    mine = points[blocked].astype(np.float64)
    cosines = (theirs * mine).sum(1) / np.linalg.norm(theirs, axis=1) / np.linalg.norm(mine, axis=1)
    np.testing.assert_allclose(cosines, similarity[blocked], atol=2e-6)


@given(corpora(), st.sampled_from(["hard", "easy"]), st.sampled_from([4, 1024]), st.sampled_from([0.003, 0.02, 0.3]))
@settings(max_examples=40)
def test_the_greedy_rule_is_its_definition(corpus, keep, block, epsilon):
    points, labels, distances = corpus
    similarity, margin = by_definition(points, labels, distances, keep, epsilon)
    assume(margin > 1e-5)
    found = greedy_duplicates(points, labels, cluster_order(labels, distances, keep), epsilon, block)
    np.testing.assert_allclose(found.similarity, similarity, atol=2e-6)
    # No two that are kept are alike, and what goes is like one that is kept.
    kept = found.kept(epsilon)
    assert kept[found.blocker[~kept]].all()


@given(corpora(), st.floats(0, 1))
@settings(max_examples=40)
def test_the_share_is_hit_exactly_by_a_quantile_of_the_similarities(corpus, share):
    points, labels, distances = corpus
    found = semantic_duplicates(points, labels, cluster_order(labels, distances))
    sizes = np.ones(len(labels), np.int64)
    kept = smallest(found.similarity, sizes, Budget(share=share, of="units"))
    assert kept.sum() == np.floor(share * len(labels) + 0.5)
    threshold = threshold_of(found.similarity, kept)
    assert not (kept & (found.similarity > threshold)).any() and kept[found.similarity < threshold].all()


@pytest.mark.parametrize("keep", KEEP)
def test_all_copies_but_one_of_each_cluster_go(keep):
    points = np.repeat(np.eye(4, dtype=np.float16), 30, axis=0)
    labels = np.repeat([0, 0, 1, 1], 30)
    found = semantic_duplicates(points, labels, cluster_order(labels, np.zeros(120), keep, seed=1), block=16)
    assert found.kept(1e-3).reshape(4, 30).sum(1).tolist() == [1, 1, 1, 1]


def test_no_more_than_a_block_is_compared_at_a_time(monkeypatch):
    """Memory is bounded by what is compared at once: the largest shapes do not grow with the cluster."""
    from cptjax.selection import semantic_duplicates as module

    seen = []

    def watched(rows, held, columns):
        seen.append((rows.shape, columns.shape))
        return compared(rows, held, columns)

    compared = module._most_similar
    monkeypatch.setattr(module, "_most_similar", watched)
    points = np.random.default_rng(0).normal(size=(256, 4)).astype(np.float32)
    found = semantic_duplicates(points, np.zeros(256, np.int64), np.arange(256), block=64)
    assert set(seen) == {((64, 4), (64, 4))} and len(seen) == 3 + 2 + 1
    every = np.tril(np.asarray(_similarities(points, points)), -1) + np.triu(np.full((256, 256), NOTHING))
    np.testing.assert_allclose(found.similarity, every.max(1), atol=1e-6)


def test_nothing_gives_nothing():
    found = semantic_duplicates(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert len(found.similarity) == len(found.blocker) == 0
