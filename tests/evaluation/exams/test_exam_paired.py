"""Tests and intervals of paired outcomes: known values, and the right size where nothing differs."""

import numpy as np
import pytest
from scipy import stats

from cptjax.evaluation.bootstrap import paired_interval
from cptjax.evaluation.exams.paired import mcnemar, sign_flips, wilson


@pytest.mark.parametrize("wins, losses", [(0, 0), (1, 0), (5, 5), (3, 12), (40, 21), (700, 641)])
def test_mcnemar_is_the_exact_binomial_test(wins, losses):
    mine = np.array([1.0] * wins + [0.0] * losses + [1.0, 0.0, 1.0])
    theirs = np.array([0.0] * wins + [1.0] * losses + [1.0, 0.0, 1.0])
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(mine, theirs) == (pytest.approx(expected, rel=1e-9), wins + losses)
    assert mcnemar(theirs, mine)[0] == mcnemar(mine, theirs)[0]


@pytest.mark.parametrize("right, questions", [(0, 10), (10, 10), (27, 100), (1, 3)])
def test_wilsons_interval_is_scipys(right, questions):
    expected = stats.binomtest(right, questions).proportion_ci(method="wilson")
    assert wilson(right, questions) == pytest.approx((expected.low, expected.high), abs=1e-12)


def outcomes(random, questions):
    """Two checkpoints that are equally good, at hard and easy questions."""
    ease = random.beta(2, 2, questions)
    return [(random.random(questions) < ease).astype(float) for _ in range(2)]


def test_where_nothing_differs_tests_reject_as_often_as_they_say():
    """A/A (PROTOCOL.md 11): of pairs of equally good checkpoints at most 5% are told apart, and some are."""
    random = np.random.default_rng(0)
    rejected = sum(mcnemar(*outcomes(random, 200))[0] <= 0.05 for _ in range(1000))
    assert 10 <= rejected <= 70  # 50 at most are expected, 6.9 is their deviation; an exact test keeps below


def test_where_nothing_differs_intervals_hold_zero_as_often_as_they_say():
    random = np.random.default_rng(2)
    each, missed = np.ones(80), 0
    for number in range(100):
        mine, theirs = outcomes(random, 80)
        low, high = paired_interval(mine, each, theirs, each, seed=number)
        missed += not low <= 0 <= high
    assert 1 <= missed <= 13  # 5 are expected, 2.2 is their deviation


def test_where_questions_share_documents_signs_are_drawn_by_document():
    """Questions of a document move together: by question the test rejects far too often, by document as it says."""
    random = np.random.default_rng(1)
    documents = np.repeat(np.arange(40), 25)
    by_question = by_document = 0
    for number in range(200):
        leaning = np.repeat(random.normal(0, 0.25, (2, 40)), 25, axis=1)
        mine, theirs = ((random.random(1000) < 0.5 + lean).astype(float) for lean in leaning)
        by_question += mcnemar(mine, theirs)[0] <= 0.05
        by_document += sign_flips(mine, theirs, documents, number)[0] <= 0.05
    assert by_question > 60 and 2 <= by_document <= 21  # of 200: 10 are expected, 3.1 is their deviation


def test_signs_drawn_find_a_difference_and_none():
    documents = np.repeat(np.arange(12), 5)
    ones, zeros = np.ones(60), np.zeros(60)
    assert sign_flips(ones, zeros, documents, 0) == (pytest.approx(2 / 2**12, rel=0.7), 12)
    assert sign_flips(ones, ones, documents, 0) == (1.0, 0)
