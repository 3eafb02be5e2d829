"""Folders of rows: read as written, in any order; nothing unfinished, changed or damaged is read."""

import json

import numpy as np
import pytest

from cptjax.data.packing import pack
from cptjax.data.row_format import batch_of
from cptjax.data.rows import RowReader, RowWriter, read_manifest
from cptjax.errors import CptjaxError

LENGTH = 16
FACTS = {
    "source": "law",
    "split": "train",
    "files": ({"name": "a.jsonl", "sha256": "0"},),
    "tokenizer": {"name": "/somewhere", "fingerprint": "f", "size": 512},
    "start": 1,
    "eos": 2,
    "settings": {},
}


def write(folder, documents=40, shard_bytes=600, finish=True, **facts):
    """Rows of random documents, in several shards; returns the rows as they were packed."""
    rng = np.random.default_rng(0)
    writer = RowWriter(str(folder), LENGTH, 512, shard_bytes)

    def tokens():
        for i in range(documents):
            n = int(rng.integers(1, 60))
            ordinal = writer.document(f"文/{i}", 3 * n, n, {"year": i, "kind": "statute"})
            yield ordinal, np.concatenate([[1], rng.integers(3, 512, n - 1), [2]])

    rows = list(pack(tokens(), LENGTH))
    for row in rows:
        writer.row(row)
    if finish:
        writer.finish(**{**FACTS, **facts})
    return rows


def test_rows_are_read_as_they_were_written_in_any_order(tmp_path):
    rows = write(tmp_path / "rows")
    reader = RowReader(str(tmp_path / "rows"))
    assert len(reader) == len(rows) and len(reader.manifest.shards) > 3
    order = np.random.default_rng(1).permutation(len(rows))[: len(rows) // 2].tolist()
    expected = batch_of([rows[i] for i in [*order, order[0]]], LENGTH)
    found = reader.read([*order, order[0]])
    for name, array in expected.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype
    assert reader.read([])["inputs"].shape == (0, LENGTH)
    with pytest.raises(IndexError, match="holds rows 0 to"):
        reader.read([len(rows)])


def test_documents_are_known_by_their_ordinals(tmp_path):
    rows = write(tmp_path / "rows")
    reader = RowReader(str(tmp_path / "rows"))
    found = reader.documents([7, 0])
    assert [document["id"] for document in found] == ["文/7", "文/0"]
    assert found[0]["metadata"] == {"year": 7, "kind": "statute"}
    ordinals = np.concatenate([row.ordinals for row in reader.pieces(range(len(rows)))])
    assert set(ordinals) == set(range(40))
    everything = reader.documents(range(40))
    assert sum(document["bytes"] for document in everything) == reader.manifest.bytes
    assert sum(document["tokens"] for document in everything) == reader.manifest.tokens


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    for name in ("here", "there"):
        write(tmp_path / name)
    write(tmp_path / "other", documents=39)
    write(tmp_path / "elsewhere", tokenizer={**FACTS["tokenizer"], "name": "/moved"})
    here, there, other, elsewhere = (
        read_manifest(str(tmp_path / name)).fingerprint for name in ("here", "there", "other", "elsewhere")
    )
    assert here == there == elsewhere != other


def test_a_folder_without_manifest_is_not_read(tmp_path):
    write(tmp_path / "rows", finish=False)
    with pytest.raises(CptjaxError, match="holds no finished rows"):
        RowReader(str(tmp_path / "rows"))


def test_a_changed_manifest_is_refused(tmp_path):
    write(tmp_path / "rows")
    path = tmp_path / "rows" / "manifest.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "eos": 3}))
    with pytest.raises(CptjaxError, match="was changed after it was written"):
        RowReader(str(tmp_path / "rows"))
    path.write_text(json.dumps({**found, "format": 99}))
    with pytest.raises(CptjaxError, match="is of format 99"):
        RowReader(str(tmp_path / "rows"))
    path.write_text("{")
    with pytest.raises(CptjaxError, match="manifest.json is damaged"):
        RowReader(str(tmp_path / "rows"))


def test_a_missing_truncated_or_foreign_shard_is_refused_by_name(tmp_path):
    write(tmp_path / "rows")
    shard = tmp_path / "rows" / "rows-00001.array_record"
    whole = shard.read_bytes()
    for damage in (whole[: len(whole) // 2], b""):
        shard.write_bytes(damage)
        with pytest.raises(CptjaxError, match="rows-00001.array_record"):
            RowReader(str(tmp_path / "rows")).read(range(10))
    shard.unlink()
    with pytest.raises(CptjaxError, match="rows-00001.array_record holds 0 records"):
        RowReader(str(tmp_path / "rows"))
    shard.write_bytes((tmp_path / "rows" / "documents.array_record").read_bytes())
    with pytest.raises(CptjaxError, match="records; its manifest says"):
        RowReader(str(tmp_path / "rows"))


def test_a_flipped_bit_never_becomes_another_row(tmp_path):
    rows = write(tmp_path / "rows")
    expected = batch_of(rows, LENGTH)
    shard = tmp_path / "rows" / "rows-00001.array_record"
    whole = shard.read_bytes()
    for at in np.random.default_rng(2).integers(0, len(whole), 60).tolist():
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            found = RowReader(str(tmp_path / "rows")).read(range(len(rows)))
        except CptjaxError:
            continue  # refused; bits in the padding of a block may go unnoticed, but then nothing has changed
        assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_a_folder_that_exists_is_not_written_over(tmp_path):
    write(tmp_path / "rows")
    with pytest.raises(FileExistsError):
        RowWriter(str(tmp_path / "rows"), LENGTH, 512)
