"""Files written by several threads: the bytes that writing from beginning to end gives, and errors that stop them."""

import json
import threading
import time
import weakref

import ml_dtypes
import numpy as np
import pytest

from cptjax.checkpoints import safetensors_writing, tiles
from cptjax.checkpoints.safetensors import CODES, TensorSpec
from cptjax.checkpoints.safetensors_writing import write_tensors
from cptjax.errors import CptjaxError

DTYPES = [np.dtype(dtype) for dtype in (np.float32, ml_dtypes.bfloat16, np.float16)]


@pytest.fixture(params=["at once", "in turn"])
def way(request, monkeypatch):
    """The two ways, both in pieces so small that most tensors take many."""
    for name, size in (
        ("_WIDE", 16),
        ("_HIGH", 8),
        ("_TURNED", 500),
        ("_BLOCK", 100),
        ("_PIECE", 1000),
        ("_FEWEST", 8),
    ):
        monkeypatch.setattr(tiles, name, size)
    monkeypatch.setattr(safetensors_writing, "_has_places", lambda path: request.param == "at once")
    return request.param


def tensors_of(dtype):
    rng = np.random.default_rng(0)

    def values(*shape):
        return rng.standard_normal(shape).astype(dtype)

    return {
        "embedding": values(70, 32),
        "transposed": values(75, 91).T,
        "heads first": values(24, 4, 6).transpose(1, 2, 0).reshape(24, 24),
        "experts": values(3, 40, 50).transpose(0, 2, 1),
        "every third": values(300, 5)[::3, 1:],
        "backwards": values(2000)[::-1],
        "scalar": values(),
        "empty": values(0, 4),
        "one": values(1, 1, 1),
        "bias": values(13),
    }


def announced(tensors, dtype):
    return {name: TensorSpec(dtype, tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("source", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_file_is_its_header_and_the_tensors_as_numpy_casts_them(tmp_path, way, source, dtype):
    tensors = tensors_of(source)
    assert write_tensors(tmp_path, announced(tensors, dtype), tensors.values(), 10**9, True) == ["model.safetensors"]
    values = [np.ascontiguousarray(tensor).astype(dtype).tobytes() for tensor in tensors.values()]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for (name, tensor), written in zip(tensors.items(), values, strict=True):
        place = [end, end := end + len(written)]
        header[name] = {"dtype": CODES[dtype], "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    expected = len(text).to_bytes(8, "little") + text + b"".join(values)
    assert (tmp_path / "model.safetensors").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_both_ways_write_the_same_shards(tmp_path, monkeypatch):
    tensors = tensors_of(np.float32)
    for way in ("at once", "in turn"):
        monkeypatch.setattr(safetensors_writing, "_has_places", lambda path, way=way: way == "at once")
        (tmp_path / way).mkdir()
        names = write_tensors(tmp_path / way, announced(tensors, DTYPES[0]), tensors.values(), 20_000)
    assert len(names) > 3
    assert all(
        (tmp_path / "at once" / name).read_bytes() == (tmp_path / "in turn" / name).read_bytes() for name in names
    )


@pytest.mark.parametrize("name", ["embedding", "transposed", "experts", "backwards", "scalar", "bias"])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e6])
def test_what_is_not_finite_is_named(tmp_path, way, name, value):
    tensors = tensors_of(np.float32)
    tensors[name][(-1,) * tensors[name].ndim] = value
    with pytest.raises(CptjaxError, match=f"'{name}' is not finite in float16"):
        write_tensors(tmp_path, announced(tensors, DTYPES[2]), tensors.values(), 10**9, only_finite=True)
    assert not (tmp_path / "model.safetensors").exists()
    if value == 1e6:
        write_tensors(tmp_path, announced(tensors, DTYPES[0]), tensors.values(), 10**9, only_finite=True)


def test_nothing_but_finite_values_has_to_be_asked_for(tmp_path, way):
    tensors = {"a": np.full((90, 40), np.nan, np.float32).T, "b": np.full(3000, np.inf, np.float32)}
    write_tensors(tmp_path, announced(tensors, DTYPES[1]), tensors.values(), 10**9)
    values = b"".join(tensor.astype(DTYPES[1]).tobytes() for tensor in tensors.values())
    assert (tmp_path / "model.safetensors").read_bytes().endswith(values)


def test_a_disk_that_is_full_stops_all_threads(tmp_path, monkeypatch):
    """Its own error comes out, after few further pieces and with no thread left."""
    monkeypatch.setattr(tiles, "_PIECE", 100)
    calls = []

    def full(descriptor, data, place):
        calls.append(place)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_writing.os, "pwrite", full)
    made, threads = [], threading.active_count()

    def tensors():
        for number in range(50):
            made.append(number)
            yield np.ones((50, 100), np.float32)

    specs = {f"t{number}": TensorSpec(DTYPES[0], (50, 100)) for number in range(50)}
    with pytest.raises(OSError, match="No space left on device"):
        write_tensors(tmp_path, specs, tensors(), 10**9)
    assert len(made) <= 2 and len(calls) <= 100 and threading.active_count() == threads
    assert not (tmp_path / "model.safetensors").exists()


def test_a_system_that_takes_less_than_it_is_given_gets_the_rest(tmp_path, monkeypatch):
    pwrite = safetensors_writing.os.pwrite
    monkeypatch.setattr(safetensors_writing.os, "pwrite", lambda file, data, place: pwrite(file, data[:1001], place))
    tensors = tensors_of(np.float32)
    write_tensors(tmp_path, announced(tensors, DTYPES[0]), tensors.values(), 10**9)
    values = b"".join(np.ascontiguousarray(tensor).tobytes() for tensor in tensors.values())
    assert (tmp_path / "model.safetensors").read_bytes().endswith(values)


def test_an_error_of_whoever_makes_the_tensors_comes_out(tmp_path, way):
    def tensors():
        yield np.ones((50, 100), np.float32)
        raise RuntimeError("a shard is gone")

    specs = {name: TensorSpec(DTYPES[0], (50, 100)) for name in "ab"}
    with pytest.raises(RuntimeError, match="a shard is gone"):
        write_tensors(tmp_path, specs, tensors(), 10**9)
    assert not (tmp_path / "model.safetensors").exists()


def test_two_tensors_are_held_at_most(tmp_path, way):
    alive, most = weakref.WeakSet(), []

    class Held(np.ndarray):
        """An array that can be looked after."""

        __hash__ = object.__hash__

    def tensors():
        for _ in range(20):
            tensor = np.ones((50, 100), np.float32).view(Held)
            alive.add(tensor)
            for _ in range(500):  # a thread lets go a moment after it has said that it is done
                if len(alive) > 2:
                    time.sleep(0.01)
            most.append(len(alive))
            yield tensor
            del tensor

    specs = {f"t{number}": TensorSpec(DTYPES[0], (50, 100)) for number in range(20)}
    write_tensors(tmp_path, specs, tensors(), 10**9)
    assert max(most) <= 2, most
