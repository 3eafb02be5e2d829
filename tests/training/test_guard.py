"""Spikes: against the same rule worked out in numpy, and through the train step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.training.guard import Guard, fresh_watch, judge

GUARD = Guard(sigmas=4.0, window=8)


@jax.jit
def judged_step(watch, loss, norm, stage):
    return judge(GUARD, watch, loss, norm, jnp.isfinite(loss) & jnp.isfinite(norm), stage)


def judged(losses, norms=None, begins=()):
    """Which steps are accepted, and the metrics of each."""
    watch, accepted, metrics = fresh_watch(GUARD), [], []
    for i, loss in enumerate(losses):
        norm = 1.0 if norms is None else norms[i]
        stage = jnp.int32(sum(begin <= i for begin in begins))
        found, watch, numbers = judged_step(watch, jnp.float32(loss), jnp.float32(norm), stage)
        accepted.append(bool(found))
        metrics.append({name: float(value) for name, value in numbers.items()})
    return accepted, metrics


def by_hand(losses, norms):
    """The rule of `Guard` in plain Python."""
    kept, accepted = [], []
    for pair in zip(losses, norms, strict=True):
        fine = bool(np.isfinite(pair).all())
        noted = kept[-GUARD.window :]
        if fine and len(noted) >= GUARD.window // 2:
            for value, before in zip(pair, zip(*noted, strict=True), strict=True):
                deviation = max(np.std(before, ddof=1), 0.01 * abs(np.mean(before)))
                fine &= bool((value - np.mean(before)) / deviation <= GUARD.sigmas)
        accepted.append(fine)
        kept += [pair] if fine else []
    return accepted


def test_a_spike_is_refused_and_does_not_count_in_what_follows():
    losses = [3.0, 3.1, 2.9, 3.05, 9.0, 3.0, 9.0, 2.95]
    accepted, metrics = judged(losses)
    assert accepted == [True] * 4 + [False, True, False, True]
    assert metrics[4]["deviations"] > 4 and [m["refused_in_a_row"] for m in metrics] == [0, 0, 0, 0, 1, 0, 1, 0]


def test_there_is_no_verdict_before_half_a_window_and_a_fall_is_no_spike():
    assert all(judged([3.0, 30.0, 3.0])[0])
    assert all(judged([3.0, 3.1, 2.9, 3.05, 0.1])[0])


def test_what_is_not_finite_is_refused_at_once():
    accepted, metrics = judged([np.nan, 3.0, np.inf, 3.0], [1, np.nan, 1, 1])
    assert accepted == [False, False, False, True]
    assert [m["refused_in_a_row"] for m in metrics] == [1, 2, 3, 0]
    assert all(m["deviations"] == 0 for m in metrics)


def test_a_gradient_norm_can_be_the_spike():
    assert judged([3.0] * 6, [1.0, 1.1, 0.9, 1.0, 50.0, 1.0])[0] == [True] * 4 + [False, True]


def test_a_new_stage_is_not_measured_by_the_one_before():
    losses = [3.0, 3.1, 2.9, 3.05, 9.0, 9.1]
    assert judged(losses, begins={4})[0] == [True] * 6
    assert judged(losses)[0] == [True] * 4 + [False] * 2


def test_none_refuses_no_spike_but_what_is_not_finite():
    guard = Guard(sigmas=None, window=4)
    watch = fresh_watch(guard)
    for loss, expected in ((1.0, True), (1.0, True), (1.0, True), (1e6, True), (np.nan, False)):
        accepted, watch, _ = judge(guard, watch, jnp.float32(loss), jnp.float32(1), jnp.isfinite(loss), jnp.int32(0))
        assert bool(accepted) is expected


VALUES = st.one_of(st.floats(0.5, 1.5), st.sampled_from([5.0, 50.0, float("nan"), float("inf")]))


@settings(max_examples=60)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40))
def test_the_rule_is_the_plain_one(pairs):
    losses, norms = zip(*[(float(np.float32(a)), float(np.float32(b))) for a, b in pairs], strict=True)
    assert judged(losses, norms)[0] == by_hand(losses, norms)


@pytest.mark.parametrize("setting", [{"sigmas": 0}, {"sigmas": "6"}, {"window": 1}, {"patience": 0}])
def test_settings_that_cannot_be_are_refused(setting):
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        Guard(**setting)
