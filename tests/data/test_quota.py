"""The quota schedule: proved on random blends, and against brute force where everything can be enumerated."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.data.quota import Quota, border, quota
from cptjax.data.shares import Shares, integer_parts
from cptjax.errors import ConfigurationError

# Up to 30 sources, the smallest share about 1e-5: whole numbers, thirds, tenths, and anything between.
weights_of_all_sizes = st.lists(
    st.one_of(st.floats(0.01, 1.0), st.integers(1, 5).map(float), st.sampled_from([0.001, 0.01, 0.1, 0.2, 1 / 3])),
    min_size=1,
    max_size=30,
)


def assert_in_windows(schedule: Quota, start: int, sources: np.ndarray, occurrences: np.ndarray) -> None:
    """Row k (from 1) of a source of share n/W stands in slots floor((k-1)W/n) to ceil(kW/n) - 1, exactly."""
    whole = schedule.shares.whole
    for i, n in enumerate(schedule.shares.parts[0]):
        mine = np.flatnonzero(sources == i)
        assert (np.diff(occurrences[mine]) == 1).all()
        for slot, k in zip((mine + start).tolist(), (occurrences[mine] + 1).tolist(), strict=True):
            assert (k - 1) * whole // n <= slot < -(-k * whole // n)


def assert_within_one_row(schedule: Quota, start: int, sources: np.ndarray) -> None:
    t = np.arange(start + 1, start + len(sources) + 1)
    before = schedule.counts(start)
    for i, n in enumerate(schedule.shares.parts[0]):
        counts = before[i] + np.cumsum(sources == i)
        assert np.abs(counts - t * (n / schedule.shares.whole)).max() < 1 + 1e-9 * max(1, start)


@given(weights_of_all_sizes)
@settings(max_examples=40, deadline=None)
def test_every_source_is_within_one_row_of_its_share_after_every_row(weights):
    schedule = quota(weights)
    length = 3 * schedule.block if schedule.block <= 8192 else schedule.block + 4096
    sources, occurrences = schedule.rows(0, length)
    assert_within_one_row(schedule, 0, sources)
    assert_in_windows(schedule, 0, sources, occurrences)
    for t in {0, 1, length // 3, schedule.block - 1, schedule.block, schedule.block + 1, length}:
        assert (schedule.counts(t) == np.bincount(sources[:t], minlength=len(weights))).all()


@given(weights_of_all_sizes, st.integers(0, 10**12))
@settings(max_examples=30, deadline=None)
def test_far_from_the_start_the_schedule_is_as_good_and_needs_nothing_before(weights, start):
    schedule = quota(weights)
    start -= start % schedule.block
    sources, occurrences = schedule.rows(start, start + schedule.block)
    assert_in_windows(schedule, start, sources, occurrences)
    first = [occurrences[sources == i].min() for i in range(len(weights))]
    assert first == schedule.counts(start).tolist()
    after = schedule.counts(start) + np.bincount(sources, minlength=len(weights))
    assert (after == schedule.counts(start + schedule.block)).all()  # blocks agree at their border


@given(weights_of_all_sizes, st.lists(st.tuples(st.integers(0, 20000), st.integers(0, 300)), max_size=6))
@settings(max_examples=30, deadline=None)
def test_random_access_gives_what_reading_on_gives(weights, places):
    schedule = quota(weights)
    sources, occurrences = schedule.rows(0, 20300)
    for start, length in places:
        found = quota(weights).rows(start, start + length)
        assert (found[0] == sources[start : start + length]).all()
        assert (found[1] == occurrences[start : start + length]).all()


def test_a_share_of_a_millionth_is_served_on_time():
    schedule = quota({"much": 1.0, "little": 1.1e-6})
    sources, occurrences = schedule.rows(0, 2_000_000)
    assert_in_windows(schedule, 0, sources, occurrences)
    assert schedule.counts(2_000_000)[1] in (2, 3)


def feasible_borders(parts, t):
    """All sets e that satisfy the forward and backward conditions, by enumeration over one period."""
    whole = sum(parts)
    for e in itertools.product((0, 1), repeat=len(parts)):
        x = [n * t // whole + e_i for n, e_i in zip(parts, e, strict=True)]
        if sum(x) != t or any(e_i and n * t % whole == 0 for n, e_i in zip(parts, e, strict=True)):
            continue
        forward = all(
            sum(max(0, n * u // whole - x_i) for n, x_i in zip(parts, x, strict=True)) <= u - t
            for u in range(t, t + 2 * whole + 1)
        )
        backward = all(
            sum(max(0, x_i + (-n * a // whole)) for n, x_i in zip(parts, x, strict=True)) <= t - a for a in range(t + 1)
        )
        if forward and backward:
            yield tuple(x)


@pytest.mark.parametrize("sources", [2, 3, 4, 5])
def test_the_border_is_among_those_that_brute_force_finds(sources):
    for parts in itertools.combinations_with_replacement(range(1, 8 if sources < 4 else 5), sources):
        for t in range(sum(parts) + 1):
            assert border(Shares((parts,)), t) in set(feasible_borders(parts, t)), (parts, t)


def test_shares_are_exact_when_they_can_be():
    assert integer_parts({"a": Fraction(3, 10), "b": Fraction(7, 10)}) == [3, 7]
    assert quota({"a": 0.3, "b": 0.7}).shares.parts[0] == (3, 7)  # as written, not as the binary fraction nearest to it
    odd = integer_parts({f"{i}": Fraction(1, prime) for i, prime in enumerate((10007, 10009, 10037, 10039))})
    assert sum(odd) == 2**40


@pytest.mark.parametrize("weight", [0, -1, "much", float("nan"), float("inf"), None])
def test_a_weight_that_is_no_number_above_zero_is_refused_by_name(weight):
    with pytest.raises(ConfigurationError, match="'b'"):
        quota({"a": 1, "b": weight})


def test_a_share_too_small_to_schedule_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="'dust' is 1e-07"):
        quota({"all": 1, "dust": 1e-7})
    with pytest.raises(ConfigurationError, match="at least one source"):
        quota({})
