"""Rows of another vocabulary, against numpy by hand."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.models.vocabulary import NewRows


def table_of(rows, width, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@given(data=st.data())
def test_copies_are_bit_for_bit_and_the_others_their_mixture(dtype, data):
    table = table_of(9, 4, dtype=dtype)
    copied = np.array(data.draw(st.lists(st.integers(-1, 8), min_size=1, max_size=8)))
    made = np.flatnonzero(copied < 0).tolist()
    pieces = {i: p for i in made if (p := data.draw(st.lists(st.integers(0, 8), max_size=5)))}
    mixtures = {i: (p, [2.0] * len(p)) for i, p in pieces.items()}
    new = NewRows(copied, mixtures, np.arange(7)).of(table, 0)
    assert new.dtype == dtype
    for i, old in enumerate(copied):
        if old >= 0:
            assert new[i].tobytes() == table[old].tobytes()
        else:
            rows = table[pieces[i]] if i in pieces else table[:7]
            expected = rows.astype(np.float64).mean(axis=0)
            np.testing.assert_allclose(
                new[i].astype(np.float64), expected, rtol=float(ml_dtypes.finfo(dtype).eps), atol=1e-7
            )


@pytest.mark.parametrize("rows", [400, 5])
def test_draws_have_the_moments_of_the_rows_also_where_they_are_fewer_than_columns(rows):
    width, count = 12, 60_000
    table = table_of(rows, width) @ table_of(width, width, 1) + 3
    whole = np.concatenate([table, np.full((2, width), 1e6, np.float32)])  # no tokens: they do not count
    recipe = NewRows(np.full(count, -1), {}, np.arange(rows), drawn=True, seed=4)
    drawn = recipe.of(whole, 0)
    np.testing.assert_allclose(drawn.mean(axis=0), table.mean(axis=0), atol=0.15)
    covariance = np.cov(table.T, bias=True)
    assert np.abs(np.cov(drawn.T) - covariance).max() < 0.05 * np.abs(covariance).max()
    if rows < width:  # nothing is drawn outside of the span of the rows
        centred, spanning = drawn - table.mean(axis=0), table - table.mean(axis=0)
        outside = centred - centred @ np.linalg.pinv(spanning, rcond=1e-4) @ spanning
        assert np.abs(outside).max() < 1e-3 * np.abs(centred).max()
    np.testing.assert_array_equal(recipe.of(whole, 0), drawn)
    assert (recipe.of(whole, 1) != drawn).any() and (
        NewRows(*[recipe.copied, {}, recipe.known, True, 5]).of(whole, 0) != drawn
    ).any()
