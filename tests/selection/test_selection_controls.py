"""Random selections, those with another's lengths, and the nearest to a target set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.selection.blocks import Blocks
from cptjax.selection.budgets import Budget, smallest
from cptjax.selection.controls import length_matched, random_scores
from cptjax.selection.nearest import nearest_targets

SEEDS = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=60), st.integers(1, 8), SEEDS)
def test_of_each_length_stratum_as_many_are_drawn_as_were_chosen(units, strata, seed):
    sizes = np.array([size for size, _ in units], np.int64)
    chosen = np.array([was_chosen for _, was_chosen in units], bool)
    kept = length_matched(sizes, chosen, seed, strata)
    assert kept.sum() == chosen.sum()
    # The strata, said in another way: each ends at the length of the unit that is the i-th part's last.
    ordered = sorted(sizes.tolist())
    ends = sorted({ordered[max(0, len(ordered) * i // strata - 1)] for i in range(1, strata + 1)}) if ordered else []
    for low, high in zip([0, *ends], ends, strict=False):
        within = (sizes > low) & (sizes <= high)
        assert kept[within].sum() == chosen[within].sum()


def test_a_length_matched_selection_is_random_within_its_strata():
    sizes = np.repeat([10, 20, 30], 4)
    chosen = np.zeros(12, bool)
    chosen[[0, 1, 8]] = True
    drawn = np.mean([length_matched(sizes, chosen, seed, 3) for seed in range(800)], axis=0)
    np.testing.assert_allclose(drawn, np.repeat([0.5, 0.0, 0.25], 4), atol=0.08)
    with pytest.raises(ConfigurationError, match="0 strata"):
        length_matched(sizes, chosen, 0, 0)


def test_a_random_selection_is_the_seeds():
    sizes, budget = np.ones(1000, np.int64), Budget(amount=300, of="units")
    one, same, other = (smallest(random_scores(1000, seed), sizes, budget) for seed in (0, 0, 1))
    assert np.array_equal(one, same) and 60 < (one & other).sum() < 120  # 90, give or take


@given(SEEDS, st.sampled_from([7, 40]), st.sampled_from([3, 16]))
@settings(max_examples=25)
def test_the_nearest_target_is_that_of_all_cosines(seed, rows, block):
    generator = np.random.default_rng(seed)
    points, targets = (generator.normal(size=(count, 4)).astype(np.float32) for count in (40, 16))
    similarity, nearest = nearest_targets(Blocks(points, rows), targets, block)
    x, y = (each / np.linalg.norm(each.astype(np.float64), axis=1, keepdims=True) for each in (points, targets))
    np.testing.assert_allclose(similarity, (x @ y.T).max(1), atol=1e-6)
    np.testing.assert_allclose((x * y[nearest]).sum(1), (x @ y.T).max(1), atol=2e-6)


def test_targets_that_are_none_are_refused():
    points = np.ones((3, 4), np.float32)
    with pytest.raises(ConfigurationError, match="no target"):
        nearest_targets(Blocks(points), points[:0])
    assert nearest_targets([], points)[0].shape == (0,)


def test_a_draw_matched_to_a_random_one_of_the_same_seed_is_another():
    sizes = np.full(1000, 7)
    chosen = smallest(random_scores(1000, 3), sizes, Budget(share=0.25))
    kept = length_matched(sizes, chosen, 3)
    assert kept.sum() == chosen.sum() == 250 and 40 < (kept & chosen).sum() < 85  # 62.5 by chance
