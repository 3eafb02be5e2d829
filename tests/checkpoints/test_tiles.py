"""Copies from one order of axes into another: the values that numpy's own copy gives, whatever the order, cut and dtype."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.checkpoints import tiles
from cptjax.checkpoints.tiles import fill, finite, in_order, pieces, same_bits

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


@st.composite
def views(draw):
    """An array of up to four axes seen in another order, a part of it along each axis."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    while np.prod(sizes) > 20_000:
        sizes[int(np.argmax(sizes))] //= 2
    dtype = draw(st.sampled_from(DTYPES))
    array = np.random.default_rng(draw(st.integers(0, 9))).standard_normal(sizes).astype(dtype)
    array = array.transpose(draw(st.permutations(range(len(sizes)))))
    cuts = []
    for size in array.shape:
        start = draw(st.integers(0, size - 1))
        cuts.append(slice(start, draw(st.integers(start, size))))
    return array[tuple(cuts)]


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces so small that these arrays take many."""
    for name, size in (
        ("_WIDE", 5),
        ("_HIGH", 3),
        ("_APART", 1),
        ("_TURNED", 25),
        ("_BLOCK", 11),
        ("_PIECE", 30),
        ("_FEWEST", 2),
    ):
        monkeypatch.setattr(tiles, name, size)


@settings(max_examples=300, suppress_health_check=["function_scoped_fixture"])
@given(source=views())
def test_what_is_filled_is_the_source(small_pieces, source):
    destination = np.full(source.shape, np.nan, np.float32)
    assert fill(destination, source) is True
    np.testing.assert_array_equal(destination, source.astype(np.float32))


@settings(max_examples=300, suppress_health_check=["function_scoped_fixture"])
@given(source=views(), value=st.sampled_from([np.nan, np.inf, -np.inf]), where=st.floats(0, 0.999))
def test_a_value_that_is_not_finite_is_found_wherever_it_is(small_pieces, source, value, where):
    if source.size:
        source[np.unravel_index(int(where * source.size), source.shape)] = value
    assert fill(np.empty(source.shape, np.float32), source) is (source.size == 0)


def test_a_value_too_large_for_float32_is_found():
    assert fill(np.empty((2, 3), np.float32), np.full((3, 2), 1e39).T) is False


@settings(max_examples=200, suppress_health_check=["function_scoped_fixture"])
@given(tensor=views(), dtype=st.sampled_from(DTYPES))
def test_pieces_in_order_are_the_tensors_bytes(small_pieces, tensor, dtype):
    assert bytes_in_order(tensor, dtype) == tensor.astype(dtype).tobytes()


def bytes_in_order(tensor, dtype):
    """All pieces through one memory, which is as large as the largest piece."""
    dtype = np.dtype(dtype)
    memory = np.empty(max((piece.size for piece in pieces(tensor)), default=0) * dtype.itemsize, np.uint8)
    return b"".join(in_order(piece, dtype, memory)[0].tobytes() for piece in pieces(tensor))


@settings(max_examples=100, suppress_health_check=["function_scoped_fixture"])
@given(tensor=views())
def test_pieces_are_small(small_pieces, tensor):
    """At most so many numbers, or so many of the last axis's rows."""
    assert all(piece.size <= max(30, 2 * tensor.shape[-1]) for piece in pieces(tensor))


@settings(max_examples=100, suppress_health_check=["function_scoped_fixture"])
@given(tensor=views(), value=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]), where=st.floats(0, 0.999))
def test_what_is_not_finite_is_written_and_told(small_pieces, tensor, value, where):
    if tensor.size:
        with np.errstate(over="ignore"):
            tensor[np.unravel_index(int(where * tensor.size), tensor.shape)] = value
    memory = np.empty(2 * tensor.size, np.uint8)
    told = [in_order(piece, np.dtype(np.float16), memory)[1] for piece in pieces(tensor)]
    assert told.count(False) == (tensor.size > 0)
    with np.errstate(over="ignore"):
        assert bytes_in_order(tensor, np.float16) == tensor.astype(np.float16).tobytes()


def test_large_matrices_of_real_pieces():
    tensor = np.random.default_rng(0).standard_normal((1100, 2100), np.float32)
    destination = np.empty((2100, 1100), np.float32)
    assert fill(destination, tensor.T) and np.array_equal(destination, tensor.T)
    for dtype in DTYPES:
        assert bytes_in_order(tensor.T, dtype) == tensor.T.astype(dtype).tobytes()


def test_same_bits_sees_dtypes_signs_and_nan():
    zeros = np.zeros((3, 4), np.float32)
    assert same_bits(zeros, zeros.copy()) and same_bits(zeros * np.nan, zeros * np.nan)
    assert not same_bits(zeros, -zeros) and not same_bits(zeros, zeros.astype(np.float16))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_all_numbers_of_two_bytes_are_finite_as_numpy_says(dtype):
    numbers = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    told = [finite(numbers[start : start + 1]) for start in range(numbers.size)]
    assert told == np.isfinite(numbers.astype(np.float32)).tolist() and told.count(False) > 100
    assert not finite(numbers) and finite(numbers[:0]) and finite(numbers[np.array(told)].reshape(-1, 2).T)
