"""Whom a query sees, as two numbers, against every pair of tokens."""

import numpy as np
from attention_definition import sees
from hypothesis import given
from hypothesis import strategies as st

from cptjax.kernels.attention.intervals import document_begins, seen, visible_keys

# Few lengths, since each compiles; ids that fall, come again, and are padding (0) anywhere.
ROWS = st.sampled_from([1, 2, 9, 24]).flatmap(
    lambda length: st.lists(
        st.lists(st.sampled_from([0, 1, 2, 7]), min_size=length, max_size=length), min_size=2, max_size=2
    )
)


@given(rows=ROWS, causal=st.booleans(), window=st.sampled_from([None, 1, 2, 5, 24, 100]))
def test_a_query_sees_the_keys_from_the_first_to_the_last(rows, causal, window):
    ids = np.asarray(rows, np.int32)
    found = seen(visible_keys(ids, causal, window), np.arange(ids.shape[1]))
    assert np.array_equal(found, sees(ids, causal, window))


@given(rows=ROWS, causal=st.booleans(), window=st.sampled_from([None, 1, 3]))
def test_every_token_sees_itself_even_padding(rows, causal, window):
    ids = np.asarray(rows, np.int32)
    first, last = visible_keys(ids, causal, window)
    places = np.arange(ids.shape[1])
    assert np.all(first <= places) and np.all(places <= last)
    assert np.all(first >= 0) and np.all(last < ids.shape[1])


def test_an_id_that_comes_again_is_another_document():
    ids = np.asarray([[3, 3, 1, 3, 0, 0, 1, 1]], np.int32)
    first, last = visible_keys(ids, causal=False, window=None)
    assert first.tolist() == [[0, 0, 2, 3, 4, 4, 6, 6]] and last.tolist() == [[1, 1, 2, 3, 5, 5, 7, 7]]
    assert document_begins(ids).tolist() == [[True, False, True, True, True, False, True, False]]
