"""D4 against its definition, its shares, and the copies that it is there for."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection.d4 import D4Settings, d4

SEEDS = st.integers(0, 2**32 - 1)


def corpus(seed, count=60):
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(count, 4))
    points[1::3] = points[::3] + generator.normal(size=points[1::3].shape) * generator.uniform(
        0.01, 0.3, (count // 3, 1)
    )
    return points.astype(np.float32), generator.integers(1, 100, count)


def by_definition(points, share, dedup_share, recluster):
    """D4 with one cluster, in float64: (kept, duplicates, the smallest difference that decided anything)."""
    x = points.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def cosines(members):
        center = x[members].sum(0)
        return x @ center / np.linalg.norm(center)

    everything = np.arange(len(x))
    to_centroid = cosines(everything)
    order = np.argsort(to_centroid)
    similarity = np.full(len(x), -2.0)
    for place, j in enumerate(order[1:], 1):
        similarity[j] = (x[order[:place]] @ x[j]).max()
    first = int(dedup_share * len(x) + 0.5)
    left = np.sort(np.argsort(similarity)[:first])
    again = cosines(left) if recluster else to_centroid
    kept = left[np.argsort(again[left])[: int(share * len(x) + 0.5)]]
    margin = min(np.diff(np.sort(each)).min() for each in (to_centroid, similarity, again[left]))
    return set(kept.tolist()), set(everything.tolist()) - set(left.tolist()), margin


@given(SEEDS, st.sampled_from([(0.3, 0.75), (0.5, 0.5), (0.25, 1.0)]), st.booleans())
@settings(max_examples=20)
def test_with_one_cluster_it_is_its_definition(seed, shares, recluster):
    points, sizes = corpus(seed)
    kept, duplicates, margin = by_definition(points, *shares, recluster)
    assume(margin > 2e-6)
    found = d4(points, sizes, D4Settings(*shares, clusters=1, of="units", recluster=recluster, start="random"))
    assert set(np.flatnonzero(found.kept)) == kept and set(np.flatnonzero(found.duplicates)) == duplicates


@given(SEEDS, st.booleans(), st.sampled_from(["hard", "easy"]))
@settings(max_examples=12)
def test_with_many_clusters_it_is_its_definition_within_each(seed, recluster, keep):
    """In its own clusters, which k-means is tested for: earlier ones block, then of each cluster the farthest stay."""
    points, _ = corpus(seed)
    found = d4(points, np.ones(60, np.int64), D4Settings(0.3, 0.7, 6, "units", recluster, keep, "random", 100))
    x = points.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def nearness(labels):
        """Each unit's cosine to the sum of its cluster, which is where k-means ends."""
        centers = [x[labels == label].sum(0) for label in labels]
        return np.array([one @ center / np.linalg.norm(center) for one, center in zip(x, centers, strict=True)])

    near, similarity, gaps = nearness(found.labels), np.full(60, -2.0), []
    for j in range(60):
        mates = np.flatnonzero((found.labels == found.labels[j]) & (np.arange(60) != j))
        gaps += np.abs(near[mates] - near[j]).tolist()
        earlier = mates[near[mates] < near[j]] if keep == "hard" else mates[near[mates] > near[j]]
        similarity[j] = (x[earlier] @ x[j]).max(initial=-2.0)
    assume(min(gaps) > 1e-5 and np.diff(np.sort(similarity[similarity > -2])).min() > 1e-5)
    left = np.zeros(60, bool)
    left[np.argsort(similarity, kind="stable")[:42]] = True
    assert np.array_equal(~found.duplicates, left)
    # Without new clusters a unit is as far from its centroid as before, which the duplicates had a part in.
    again, place = nearness(found.labels_after) if recluster else near, np.full(60, np.nan)
    for j in np.flatnonzero(left):
        mates = np.flatnonzero(left & (found.labels_after == found.labels_after[j]))
        assume((np.abs(again[mates[mates != j]] - again[j]) > 1e-5).all())
        place[j] = ((again[mates] < again[j]).sum() + 0.5) / len(mates)
    np.testing.assert_allclose(found.typicality, place, atol=1e-9)
    assert found.kept.sum() == 18 and np.nanmax(place[found.kept]) <= place[found.typical].min()


@given(SEEDS, st.sampled_from(["tokens", "units"]), st.booleans(), st.sampled_from(["hard", "easy", "random"]))
@settings(max_examples=12)
def test_the_shares_multiply_and_every_unit_has_one_fate(seed, of, recluster, keep):
    points, sizes = corpus(seed)
    chosen = D4Settings(0.3, 0.75, 5, of, recluster, keep, "random", 10)
    found = d4(points, sizes, chosen)
    assert (found.kept.astype(int) + found.duplicates + found.typical == 1).all()
    costs = sizes if of == "tokens" else np.ones(60, int)
    for kept, share in ((~found.duplicates, 0.75), (found.kept, 0.3)):
        limit, spent = np.floor(share * costs.sum() + 0.5), costs[kept].sum()
        assert spent <= limit < spent + costs.max() and (of == "tokens" or spent == limit)
    left = ~found.duplicates
    assert np.array_equal(np.isnan(found.typicality), ~left) and np.array_equal(found.labels_after >= 0, left)
    assert found.typicality[found.kept].max() <= found.typicality[found.typical].min()
    stays = found.blocking.kept(found.epsilon - 1e-6)
    assert stays[left].all() and found.blocking.similarity[found.duplicates].min() >= 1 - found.epsilon - 1e-6
    if not recluster:
        assert np.array_equal(found.labels_after[left], found.labels[left])
    again = d4(points, sizes, chosen)
    assert np.array_equal(again.kept, found.kept) and np.array_equal(again.typicality, found.typicality, equal_nan=True)


def test_copies_make_a_cluster_before_and_none_after():
    generator = np.random.default_rng(0)
    # Seven broad topics of 20 units each, and 60 copies of one text, a little changed.
    topics = 3 * np.eye(16)[np.arange(140) % 7] + 0.7 * generator.normal(size=(140, 16))
    template = 3 * np.eye(16)[[15] * 60] + generator.normal(size=(60, 16)) / 1000
    points = np.concatenate([topics, template]).astype(np.float32)
    found = d4(points, np.ones(200, np.int64), D4Settings(0.5, 0.7, 8, "units", seed=1, iterations=30))
    copies = np.arange(200) >= 140
    assert found.duplicates[copies].sum() == 59 and found.duplicates.sum() == 60
    assert [found.labels[copies][0]] == [each.label for each in found.duplicate_driven]
    assert found.duplicate_driven_after == [] and found.kept.sum() == 100


def test_prototypes_alone_and_duplicates_alone():
    points, sizes = corpus(1)
    given_ = D4Settings(0.5, 1.0, 5, "units", start="random", iterations=10)
    assert not d4(points, sizes, given_).duplicates.any()
    assert not d4(points, sizes, dataclasses.replace(given_, dedup_share=0.5)).typical.any()


@pytest.mark.parametrize("shares", [(0.8, 0.75), (0.0, 0.75), (0.5, 1.2)])
def test_shares_that_do_not_multiply_are_refused(shares):
    with pytest.raises(ConfigurationError, match="R = R_dedup"):
        D4Settings(*shares)
