"""Documents put together again from rows of either packing, against the documents that were packed; places in them, counted."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.data import pieces as pieces_module
from cptjax.data.packing import BEST_FIT, CONCATENATE, pack, pack_best_fit
from cptjax.data.pieces import all_pieces, documents, positions_before
from cptjax.data.rows import RowReader, RowWriter

START, EOS = 1, 2


def write_rows(folder, contents, length, packing):
    """Rows of the documents whose tokens (without start and EOS) are `contents`."""
    tokens = [np.array([START, *content, EOS]) for content in contents]
    writer = RowWriter(str(folder), length, 1000)
    sizes = np.array([len(each) - 1 for each in tokens])
    for i, size in enumerate(sizes.tolist()):
        writer.document(f"d{i}", 1, size, {})
    if packing == BEST_FIT:
        rows = pack_best_fit(np.arange(len(tokens)), sizes, tokens.__getitem__, length)
    else:
        rows = pack(enumerate(tokens), length)
    for row in rows:
        writer.row(row)
    writer.finish(
        source="s",
        split="train",
        files=(),
        tokenizer={"name": "", "fingerprint": "", "size": 1000},
        start=START,
        eos=EOS,
        settings={},
        packing=packing,
    )
    return RowReader(str(folder))


contents = st.lists(st.lists(st.integers(3, 999), max_size=40), min_size=1, max_size=25)


@given(contents, st.integers(1, 12), st.sampled_from([CONCATENATE, BEST_FIT]), st.sampled_from([1, 7, 1 << 20]))
@settings(max_examples=30)
def test_every_document_comes_back_and_every_piece_knows_its_place(tmp_path_factory, contents, length, packing, block):
    reader = write_rows(tmp_path_factory.mktemp("rows") / "train", contents, length, packing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "_BLOCK", block)
        patch.setattr(pieces_module, "_ROWS", 3)
        found = dict(documents(reader, all_pieces(reader)))
    assert list(found) == list(range(len(contents)))
    assert [each.tolist() for each in found.values()] == [[START, *content, EOS] for content in contents]
    for number, row in enumerate(reader.pieces(range(len(reader)))):
        sizes = [len(contents[ordinal]) + 1 for ordinal in row.ordinals]
        at = 0
        for n, ordinal, before in zip(
            row.lengths, row.ordinals, positions_before(reader, number, row, sizes), strict=True
        ):
            whole = np.array([START, *contents[ordinal], EOS])
            piece = row.stream[at : at + n + 1]
            assert before % length == 0 or packing == CONCATENATE
            assert whole[before : before + n + 1].tolist() == piece.tolist()
            at += n + 1


@given(contents, st.integers(1, 12), st.sampled_from([CONCATENATE, BEST_FIT]))
@settings(max_examples=30)
def test_places_cover_each_document_once(tmp_path_factory, contents, length, packing):
    """With equal tokens everywhere the texts would hide a wrong place: the places themselves are counted."""
    reader = write_rows(tmp_path_factory.mktemp("rows") / "train", contents, length, packing)
    covered = {i: [] for i in range(len(contents))}
    for number, row in enumerate(reader.pieces(range(len(reader)))):
        sizes = [len(contents[ordinal]) + 1 for ordinal in row.ordinals]
        for n, ordinal, before in zip(
            row.lengths, row.ordinals, positions_before(reader, number, row, sizes), strict=True
        ):
            covered[int(ordinal)] += range(before, before + n)
    assert {i: sorted(each) for i, each in covered.items()} == {
        i: list(range(len(each) + 1)) for i, each in enumerate(contents)
    }


def test_a_finished_folder_tells_as_many_documents(tmp_path):
    reader = write_rows(tmp_path / "train", [[5] * 30, [6] * 3, []], 8, CONCATENATE)
    found = all_pieces(reader)
    assert np.unique(found.ordinal, return_counts=True)[1].tolist() == [4, 2, 1]
    assert json.loads((tmp_path / "train" / "manifest.json").read_text())["documents"] == 3
