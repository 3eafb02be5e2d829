"""Every kind of file gives the same documents, from the beginning or from the middle, and a damaged one is named."""

import gzip
import json

import pytest

from cptjax.data.records import Place
from cptjax.data.sources import Text, documents, find_source, placed_documents
from cptjax.errors import ConfigurationError, CptjaxError

pa = pytest.importorskip("pyarrow", reason="needs the `text` extra")
zstandard = pytest.importorskip("zstandard", reason="needs the `text` extra")
RECORDS = [{"id": f"d{i}", "text": f"document {i} § 中 " * (i % 50 + 1), "year": 1900 + i} for i in range(3000)]
KINDS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow", "stream.arrow", "frames.jsonl.zst")


def write(folder, kind):
    import pyarrow.parquet

    path = folder / f"a.{kind}"
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
    table = pa.Table.from_pylist(RECORDS)
    if kind == "jsonl":
        path.write_bytes(lines)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines))
    elif kind == "jsonl.zst":
        path.write_bytes(zstandard.ZstdCompressor().compress(lines))
    elif kind == "frames.jsonl.zst":  # as `zstd -T` and concatenation leave it
        half = lines.index(b"\n", len(lines) // 2) - 5  # in the midst of a line
        path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(part) for part in (lines[:half], lines[half:])))
    elif kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=700)
    else:
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_the_same_documents(kind, tmp_path):
    source = find_source("a", str(write(tmp_path, kind)))
    found = list(documents(source))
    assert [document.name for document in found] == [record["id"] for record in RECORDS]
    assert [document.text for document in found] == [record["text"] for record in RECORDS]
    assert found[7].metadata == {"year": 1907} and found[7].size == len(RECORDS[7]["text"].encode())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [0, 1, 1023, 1024, 2999, 3000])
def test_reading_begins_at_any_record(kind, first, tmp_path):
    source = find_source("a", str(write(tmp_path, kind)))
    found = list(placed_documents(source, start=Place(0, first)))
    assert [place for place, _ in found] == [Place(0, i) for i in range(first, 3000)]
    assert [document.name for _, document in found] == [record["id"] for record in RECORDS[first:]]


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "frames.jsonl.zst", "parquet", "arrow"])
def test_a_file_that_was_cut_off_is_damaged_and_never_shorter(kind, tmp_path):
    path = write(tmp_path, kind)
    content = path.read_bytes()
    for end in (len(content) - 3, len(content) // 2):
        path.write_bytes(content[:end])
        with pytest.raises(CptjaxError, match="is damaged"):
            list(documents(find_source("a", str(path))))


def test_a_hugging_face_folder_is_read_by_its_own_list(tmp_path):
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    tables = [pa.Table.from_pylist(RECORDS[:5]), pa.Table.from_pylist(RECORDS[5:9])]
    for name, table in zip(("data-00000-of-00002.arrow", "data-00001-of-00002.arrow"), tables, strict=True):
        with pa.ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table)
    listed = [{"filename": f"data-0000{i}-of-00002.arrow"} for i in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": listed}))
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    for written in (str(folder), f"{tmp_path / 'saved'}#train"):
        assert [d.name for d in documents(find_source("a", written))] == [f"d{i}" for i in range(9)]
    for written, message in ((str(tmp_path / "saved"), "none is named"), (f"{tmp_path / 'saved'}#dev", "dev is named")):
        with pytest.raises(ConfigurationError, match=f"splits train, test, and {message}"):
            find_source("a", written)


def test_a_folder_from_the_hub_is_read_a_split_at_a_time(tmp_path):
    import pyarrow.parquet

    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("what it is")  # is no document of it
    for split, rows in (("train", RECORDS[:4]), ("validation", RECORDS[4:6])):
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    assert [d.name for d in documents(find_source("a", f"{tmp_path}#train"))] == ["d0", "d1", "d2", "d3"]
    with pytest.raises(ConfigurationError, match="splits train, validation, and none is named"):
        find_source("a", str(tmp_path))


def test_a_compressed_file_without_a_byte_is_damaged(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.zst"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(CptjaxError, match=f"{name} is damaged: it has no bytes"):
            list(documents(find_source("a", str(tmp_path / name))))


def test_an_arrow_stream_cut_off_between_two_batches_is_damaged(tmp_path):
    path = write(tmp_path, "stream.arrow")
    path.write_bytes(path.read_bytes()[:-8])  # without its end mark: pyarrow itself takes it for whole
    with pytest.raises(CptjaxError, match="stream.arrow is damaged: it ends without the mark"):
        list(documents(find_source("a", str(path))))


def test_a_row_of_a_table_that_is_not_utf8_is_one_malformed_record(tmp_path):
    import pyarrow.parquet

    raw = pa.array([b"one", b"\xff\xfe", b"three"], pa.binary()).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"text": raw}), tmp_path / "a.parquet")
    where = str(tmp_path / "a.parquet")
    with pytest.raises(ConfigurationError, match="a.parquet, row 1 has no text"):
        list(documents(find_source("a", where)))
    found = documents(find_source("a", Text(where=where, on_bad_record="skip")))
    assert [document.text for document in found] == ["one", "three"]


def test_a_folder_never_leaves_files_out_without_a_word(tmp_path):
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    with pytest.raises(ConfigurationError, match="has the splits train, test|has the splits test, train"):
        find_source("a", str(tmp_path))
    assert [d.text for d in documents(find_source("a", f"{tmp_path}#train"))] == ["train.jsonl"]
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="holds both .*b.parquet and .*jsonl"):
        find_source("a", str(tmp_path))
