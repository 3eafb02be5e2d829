"""The nucleus, against a search through all sets of tokens."""

import itertools

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.evaluation.sampling import nucleus

NUCLEUS = jax.jit(nucleus)


def smallest_set(counts, least):
    """Of the sets that add up to at least `least` the smallest, of these the largest, of these the first."""
    for size in range(1, len(counts) + 1):
        sets = [
            each for each in itertools.combinations(range(len(counts)), size) if sum(counts[i] for i in each) >= least
        ]
        if sets:
            return set(max(sets, key=lambda each: sum(counts[i] for i in each)))  # `max` takes the first of equal ones
    raise AssertionError


@settings(max_examples=60)
@given(st.lists(st.integers(1, 12), min_size=6, max_size=6), st.floats(0, 1, exclude_max=True))
def test_it_is_the_fewest_tokens_that_have_so_much_together(counts, share):
    total = sum(counts)
    least = int(share * total) + 0.5  # between what sums of whole numbers can be, or rounding would decide
    logits = np.log(np.array(counts) / total).astype(np.float32) + 3
    kept = np.asarray(NUCLEUS(logits, np.float32(least / total)))
    inside = np.isfinite(kept)
    assert set(np.flatnonzero(inside).tolist()) == smallest_set(counts, least)
    assert np.array_equal(kept[inside], logits[inside])


def test_equal_tokens_come_in_the_order_of_their_ids_and_padding_never():
    logits = np.array([[0.0, 1.0, 1.0, 1.0, -np.inf], [5.0, 5.0, 5.0, 5.0, -np.inf]], np.float32)
    kept = np.isfinite(np.asarray(NUCLEUS(logits, np.float32(0.5))))
    assert kept.tolist() == [[False, True, True, False, False], [True, True, False, False, False]]
    assert np.isfinite(np.asarray(NUCLEUS(logits, np.float32(1 - 1e-7)))).sum() == 8
