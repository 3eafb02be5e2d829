"""Whole numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError


@given(st.integers(0, 10**15))
def test_a_whole_float_is_the_same_number(number):
    assert whole_number(number, "X") == whole_number(float(number), "X") == number


@pytest.mark.parametrize("value, number", [(2e6, 2_000_000), (3e9, 3 * 10**9), (1e23, 10**23), (0, 0), (1.5e1, 15)])
def test_scientific_notation_is_exact(value, number):
    assert whole_number(value, "X") == number
    assert isinstance(whole_number(value, "X"), int)


@pytest.mark.parametrize("value", [2.5, -1, -2e6, "2e6", None, True, float("nan"), float("inf"), [2]])
def test_what_is_refused_is_named(value):
    with pytest.raises(ConfigurationError, match="TRAIN_TOKENS = "):
        whole_number(value, "TRAIN_TOKENS")


def test_the_smallest_value():
    assert whole_number(1, "STEPS", minimum=1) == 1
    with pytest.raises(ConfigurationError, match="below 1"):
        whole_number(0, "STEPS", minimum=1)
