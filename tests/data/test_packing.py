"""Packing and the bytes of a row: every token a target exactly once, nothing wasted, nothing lost on disk."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.packing import Row, best_fit, pack, pack_best_fit
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


def one_row_after_another(rows, length):
    """What `batch_of` does at once, position by position."""
    found = {
        name: np.zeros((len(rows), length), np.int32) for name in ("inputs", "targets", "segment_ids", "positions")
    }
    found["weights"] = np.zeros((len(rows), length), np.float32)
    for b, row in enumerate(rows):
        at = begin = 0
        for segment, n in enumerate(row.lengths.tolist(), 1):
            for p in range(n):
                found["inputs"][b, at], found["targets"][b, at] = row.stream[begin + p : begin + p + 2]
                found["segment_ids"][b, at], found["positions"][b, at] = segment, p
                found["weights"][b, at] = 1 if row.weights is None else row.weights[at]
                at += 1
            begin += n + 1
    return found


@given(corpora, st.integers(1, 16), st.sampled_from(["none", "some", "all"]), st.booleans(), st.randoms())
def test_a_batch_is_what_its_rows_are_one_after_another(documents, length, weighted, full, random):
    lengths = np.array([len(d) - 1 for d in documents], np.int64)
    tokens = [np.array(d, np.uint32) for d in documents]
    rows = list(pack_best_fit(np.arange(len(documents)), lengths, tokens.__getitem__, length))
    rows = [row for row in rows if not full or row.lengths.sum() == length]
    random.shuffle(rows)
    if weighted != "none":
        rows = [
            Row(row.lengths, row.ordinals, row.stream, np.linspace(0, 1, int(row.lengths.sum()), dtype=np.float32))
            if weighted == "all" or b % 2
            else row
            for b, row in enumerate(rows)
        ]
    found = batch_of(rows, length)
    for name, expected in one_row_after_another(rows, length).items():
        assert np.array_equal(found[name], expected) and found[name].dtype == expected.dtype, name
        assert found[name].flags.c_contiguous and found[name].flags.writeable


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


@given(st.lists(st.integers(0, 90), max_size=60), st.integers(1, 40))
def test_best_fit_cuts_only_what_is_longer_than_a_row(lengths, sequence_length):
    rows = best_fit(np.array(lengths, np.int64), sequence_length)
    assert all(0 < sum(n for _, _, n in row) <= sequence_length for row in rows)
    pieces = sorted(piece for row in rows for piece in row)
    at = dict.fromkeys(range(len(lengths)), 0)
    for document, first, n in pieces:  # every position once, in order
        assert first == at[document]
        at[document] += n
    assert [at[i] for i in range(len(lengths))] == lengths
    for document, length in enumerate(lengths):
        whole, rest = divmod(length, sequence_length)
        assert [n for d, _, n in pieces if d == document] == [sequence_length] * whole + [rest] * bool(rest)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_best_fit_is_the_definition(lengths):
    """Longest first, each where the least room is left that holds it."""
    room = []
    for length in sorted(lengths, reverse=True):
        fits = [i for i, left in enumerate(room) if left >= length]
        if fits:
            best = min(fits, key=lambda i: room[i])
            room[best] -= length
        else:
            room.append(30 - length)
    rows = best_fit(np.array(lengths), 30)
    assert sorted(30 - sum(n for _, _, n in row) for row in rows) == sorted(room)


def test_best_fit_fills_rows_of_real_text(shared_data):
    with gzip.open(shared_data / "corpora" / "english_technical.jsonl.gz", "rt", encoding="utf-8") as lines:
        lengths = np.array([len(json.loads(line)["text"].split()) * 4 // 3 for line in lines])
    rows = best_fit(lengths, 2048)
    assert lengths.sum() / (2048 * len(rows)) >= 0.99


def test_best_fit_rows_hold_the_tokens():
    documents = [np.arange(10 * i, 10 * i + 3 + i) for i in range(12)]
    lengths = np.array([len(each) - 1 for each in documents])
    for row in pack_best_fit(np.arange(12) + 100, lengths, lambda place: documents[place], 8):
        at = 0
        for ordinal, n in zip(row.ordinals, row.lengths, strict=True):
            piece = row.stream[at : at + n + 1]
            at += n + 1
            whole = documents[ordinal - 100].tolist()
            begin = whole.index(piece[0])
            assert whole[begin : begin + n + 1] == piece.tolist()
        assert at == len(row.stream)
