"""What repetition is worth: the published effective epochs, and a loss that only repetition raises."""

import pytest

from cptjax.scaling.repetition import advice, repetition, sweep


@pytest.mark.parametrize(("epochs", "worth"), [(2, 1.968), (4, 3.726), (8, 6.624), (16, 10.582)])
def test_effective_epochs_are_the_published_ones(epochs, worth):
    found = repetition(1e9, epochs * 1e9, 2e9)
    assert found.worth / 1e9 == pytest.approx(worth, abs=6e-4) and found.epochs == epochs and found.share == 0.5


def test_new_text_costs_nothing_and_fewer_tokens_more():
    assert repetition(5e9, 5e9, 5e9, params=1e8).loss == pytest.approx(0, abs=1e-6)
    assert repetition(9e9, 5e9, 9e9, params=1e8).loss == pytest.approx(0, abs=1e-6)  # part of it is never read
    losses = [each.loss for each in sweep(5e9, 5e9, params=1e8)]
    assert losses == sorted(losses) and losses[-1] > 0.05


def test_advice_says_when_repeating_is_no_longer_free():
    assert "250,000,000 tokens would be read 4 times" in advice(repetition(1e8, 1e9, 1e9))[-1]
    assert len(advice(repetition(5e8, 1e9, 1e9))) == 1
    assert "an extrapolation" in advice(repetition(2e7, 5e7, 2e7, 1e8))[1]
    assert "extrapolation" not in advice(repetition(2e8, 5e8, 2e8, 1e8))[1]
    assert "never read" in advice(repetition(2e9, 1e9, 4e9))[-1]
