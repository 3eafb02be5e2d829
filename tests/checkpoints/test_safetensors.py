"""The safetensors reader and writer: every dtype, the official library both ways, and every kind of damage named."""

import json
import os

import ml_dtypes
import numpy as np
import pytest

from cptjax.checkpoints.safetensors import DTYPES, SafetensorsFile, TensorSpec
from cptjax.checkpoints.safetensors_writing import write_tensors
from cptjax.errors import CptjaxError


def tensors_of_all_dtypes():
    rng = np.random.default_rng(0)
    tensors = {f"a.{code}": (rng.normal(size=(3, 5)) * 20).astype(dtype) for code, dtype in DTYPES.items()}
    return tensors | {"scalar": np.array(3.5, np.float32), "empty": np.zeros((0, 4), np.float32)}


def write(folder, tensors, shard_bytes=10**9):
    specs = {name: TensorSpec(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    return write_tensors(folder, specs, iter(tensors.values()), shard_bytes)


def same_bytes(first, second):
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


def test_every_dtype_returns_as_it_was_written(tmp_path):
    tensors = tensors_of_all_dtypes()
    assert write(tmp_path, tensors) == ["model.safetensors"]
    file = SafetensorsFile(tmp_path / "model.safetensors")
    assert file.metadata == {"format": "pt"}
    assert list(file.specs) == list(tensors)
    for name, tensor in tensors.items():
        assert same_bytes(file.read(name), tensor), name
        assert b"".join(bytes(block) for block in file.blocks(name)) == tensor.tobytes()


def test_rows_are_read_without_the_rest(tmp_path):
    tensors = tensors_of_all_dtypes()
    write(tmp_path, tensors)
    file = SafetensorsFile(tmp_path / "model.safetensors")
    for rows in (slice(1, 3), slice(0, 0), slice(2, None), slice(2, 1), slice(1, 99)):
        for name in ("a.BF16", "a.I8", "a.F64"):
            assert same_bytes(file.read(name, rows), np.ascontiguousarray(tensors[name][rows]))
    # A view of the mapped file: nothing was copied.
    assert not file.read("a.F64").flags.owndata and not file.read("a.F64").flags.writeable


def test_the_official_library_reads_ours_and_we_read_its(tmp_path):
    official = pytest.importorskip("safetensors.numpy")
    tensors = {
        name: tensor for name, tensor in tensors_of_all_dtypes().items() if "F8" not in name and "BF16" not in name
    }
    write(tmp_path, tensors)
    loaded = official.load_file(tmp_path / "model.safetensors")
    assert set(loaded) == set(tensors) and all(same_bytes(loaded[name], tensors[name]) for name in tensors)
    official.save_file(tensors, tmp_path / "theirs.safetensors", metadata={"a": "b"})
    file = SafetensorsFile(tmp_path / "theirs.safetensors")
    assert file.metadata == {"a": "b"} and all(same_bytes(file.read(name), tensors[name]) for name in tensors)


def test_shards_hold_everything_once_and_the_index_says_where(tmp_path):
    tensors = {f"t{i}": np.full((i + 1, 7), i, np.float32) for i in range(8)}
    names = write(tmp_path, tensors, shard_bytes=300)
    assert names[0].startswith("model-00001-of-0000") and names[-1] == "model.safetensors.index.json"
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    index = json.loads((tmp_path / names[-1]).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    held = {}
    for name in names[:-1]:
        file = SafetensorsFile(tmp_path / name)
        assert sum(spec.bytes for spec in file.specs.values()) <= 300
        held |= {tensor: name for tensor in file.specs}
    assert held == index["weight_map"] and list(held) == list(tensors)


def test_a_tensor_larger_than_a_shard_stands_alone(tmp_path):
    names = write(tmp_path, {"a": np.ones(3), "b": np.ones(500), "c": np.ones(3)}, shard_bytes=100)
    assert [list(SafetensorsFile(tmp_path / name).specs) for name in names[:-1]] == [["a"], ["b"], ["c"]]


def test_a_tensor_other_than_announced_is_refused_and_no_file_stands(tmp_path):
    with pytest.raises(ValueError, match="'a'.*announced"):
        write_tensors(tmp_path, {"a": TensorSpec(np.dtype(np.float32), (3,))}, iter([np.ones((2,), np.float32)]), 10**9)
    assert not (tmp_path / "model.safetensors").exists()


def damaged(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start, stop, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "header, data, message",
    [
        ({"a": entry(0, 8), "b": entry(8, 16)}, bytes(12), "truncated: tensor 'b' ends at byte 16 .* only 12"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), "tensor 'b' overlaps tensor 'a', which ends at byte 8"),
        (
            {"a": entry(0, 8), "b": entry(12, 20)},
            bytes(20),
            "tensor 'b' begins at byte 12, leaving a gap after tensor 'a'",
        ),
        ({"a": entry(4, 12)}, bytes(12), "tensor 'a' begins at byte 4, leaving a gap after the header"),
        ({"a": entry(0, 8)}, bytes(9), "tensors take 8 bytes, but 9 bytes follow"),
        ({"a": entry(0, 12)}, bytes(12), r"tensor 'a' of shape \(2,\) and dtype F32 needs 8 bytes.* hold 12"),
        ({"a": entry(0, 8, dtype="F4")}, bytes(8), "tensor 'a' has the unknown dtype 'F4'"),
        ({"a": entry(0, 8, shape=(-2,))}, bytes(8), "entry for tensor 'a' is damaged"),
        ({"a": entry(0, 8, shape=(True, 2))}, bytes(8), "entry for tensor 'a' is damaged"),
        ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), "entry for tensor 'a' is damaged"),
        ({"a": [1, 2]}, bytes(8), "entry for tensor 'a' is damaged"),
        ({"a": entry(0, 8, dtype=["F32"])}, bytes(8), "entry for tensor 'a' is damaged"),
        ({"__metadata__": [1], "a": entry(0, 8)}, bytes(8), "__metadata__"),
        ([1, 2], b"", "not a table of tensors"),
        (b'{"a": ', b"", "header is not readable"),
        (b"\xff\xfe", b"", "header is not readable"),
        (b'{"a": {}, "a": {}}', b"", "stands in it twice"),
    ],
)
def test_damage_is_named_with_file_and_tensor(tmp_path, header, data, message):
    path = damaged(tmp_path / "model.safetensors", header, data)
    with pytest.raises(CptjaxError, match=message) as refused:
        SafetensorsFile(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "does not begin with the length"),
        (b"abc", "does not begin with the length"),
        ((10**12).to_bytes(8, "little") + b"{}", "does not begin with the length"),
        ((1000).to_bytes(8, "little") + b"{}", "truncated: its header should take 1000 bytes, the whole file has 10"),
        (b"\x80\x02}q\x00.(a pickle)", "does not begin with the length"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CptjaxError, match=message):
        SafetensorsFile(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    write(tmp_path, {"a": np.ones((3, 4), np.float32), "b": np.ones(5, ml_dtypes.bfloat16)})
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(CptjaxError):
            SafetensorsFile(tmp_path / "cut")


def test_tensors_that_begin_at_odd_bytes_are_read(tmp_path):
    values = np.asarray([1.5, -2.25], np.float32)
    header = {"odd": entry(0, 3, (3,), "U8"), "a": entry(3, 11), "b": entry(11, 15, (2,), "BF16")}
    path = damaged(tmp_path / "x", header, bytes(3) + values.tobytes() + values.astype(ml_dtypes.bfloat16).tobytes())
    file = SafetensorsFile(path)
    assert np.array_equal(file.read("a"), values) and np.array_equal(file.read("b").astype(np.float32), values)
