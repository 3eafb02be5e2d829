"""Packing and the bytes of a row: every token a target exactly once, nothing wasted, nothing lost on disk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.packing import Row, pack
from cptjax.data.row_format import batch_of, decode_row, encode_row, token_bytes
from cptjax.errors import CptjaxError

corpora = st.lists(st.lists(st.integers(0, 2**17 - 1), min_size=2, max_size=40), max_size=12)


def packed(documents, length):
    return list(pack(((i, np.array(d, np.int64)) for i, d in enumerate(documents)), length))


@given(corpora, st.integers(1, 16))
def test_every_token_after_the_start_is_a_target_exactly_once(documents, length):
    batch = batch_of(packed(documents, length), length)
    real = batch["segment_ids"] > 0
    assert batch["targets"][real].tolist() == [token for document in documents for token in document[1:]]
    assert batch["inputs"][real].tolist() == [token for document in documents for token in document[:-1]]
    assert (batch["weights"] == real).all()


@given(corpora, st.integers(1, 16))
def test_only_the_last_row_has_padding(documents, length):
    rows = packed(documents, length)
    assert all(row.lengths.sum() == length for row in rows[:-1])
    assert all((row.lengths >= 1).all() and len(row.stream) == (row.lengths + 1).sum() for row in rows)


@given(corpora, st.integers(1, 16))
def test_segments_count_from_one_and_positions_restart(documents, length):
    rows = packed(documents, length)
    batch = batch_of(rows, length)
    for b, row in enumerate(rows):
        expected = [(s + 1, p) for s, n in enumerate(row.lengths) for p in range(n)]
        expected += [(0, 0)] * (length - len(expected))
        assert list(zip(batch["segment_ids"][b], batch["positions"][b], strict=True)) == expected
    assert all(array.dtype == (np.float32 if name == "weights" else np.int32) for name, array in batch.items())


def test_a_cut_document_goes_on_with_its_last_token_as_context():
    first, second = packed([[1, 5, 6, 7, 8, 2]], 3)
    assert first.stream.tolist() == [1, 5, 6, 7] and second.stream.tolist() == [7, 8, 2]


@given(corpora, st.integers(1, 16), st.booleans())
def test_a_row_survives_its_record(documents, length, weighted):
    for row in packed(documents, length):
        if weighted:
            row = Row(row.lengths, row.ordinals, row.stream, np.linspace(0, 1, row.lengths.sum(), dtype=np.float32))
        found = decode_row(encode_row(row, 4), "here")
        for field in ("lengths", "ordinals", "stream", "weights"):
            assert np.array_equal(getattr(found, field), getattr(row, field)), field
        assert np.array_equal(batch_of([found], length)["weights"], batch_of([row], length)["weights"])


def test_tokens_take_two_bytes_while_they_fit():
    assert (token_bytes(512), token_bytes(65536), token_bytes(65537)) == (2, 2, 4)
    row = packed([[65535, 0, 65535]], 4)[0]
    assert decode_row(encode_row(row, 2), "here").stream.tolist() == [65535, 0, 65535]


@given(st.binary(max_size=60))
def test_bytes_that_are_no_row_are_refused_by_name(record):
    try:
        row = decode_row(record, "rows-00000, row 7")
    except CptjaxError as error:
        assert "rows-00000, row 7 is damaged" in str(error)
    else:
        assert len(row.stream) == row.lengths.sum() + len(row.lengths)


def test_a_truncated_record_is_refused():
    record = encode_row(packed([[1, 2, 3, 4]], 4)[0], 2)
    for n in range(len(record)):
        with pytest.raises(CptjaxError, match="damaged"):
            decode_row(record[:n], "here")
