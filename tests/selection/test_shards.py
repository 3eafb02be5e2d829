"""Vectors in files: the array that was written, what was killed goes on where it was, and nothing else passes for it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.selection.shards import write_shards

VECTORS = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)


def write(folder, vectors=VECTORS, made_of=None, asked=None, **given):
    def make(first, last):
        (asked if asked is not None else []).append((first, last))
        return vectors[first:last]

    return write_shards(folder, len(vectors), 5, made_of or {"weights": "a"}, make, **given)


@given(st.lists(st.integers(0, 22), max_size=30), st.slices(23))
@examples(max_examples=20)
def test_they_are_the_array(tmp_path_factory, indices, part):
    folder = tmp_path_factory.getbasetemp() / "shards"
    points, kept = write(folder), VECTORS.astype(np.float16)
    assert points.shape == (23, 3) and len(points) == 23 and points.dtype == np.float16
    assert np.array_equal(points[np.array(indices, int)], kept[np.array(indices, int)])
    assert np.array_equal(points[part], kept[part]) and np.array_equal(points[kept[:, 0] > 0], kept[kept[:, 0] > 0])


def test_what_was_killed_goes_on_behind_the_last_file(tmp_path):
    class Killed(Exception):
        pass

    def until(first, last):
        if first >= 10:
            raise Killed
        return VECTORS[first:last]

    with pytest.raises(Killed):
        write_shards(tmp_path, 23, 5, {"weights": "a"}, until)
    asked = []
    points = write(tmp_path, asked=asked)
    assert asked == [(10, 15), (15, 20), (20, 23)]
    assert np.array_equal(points[:], VECTORS.astype(np.float16))
    asked.clear()
    write(tmp_path, asked=asked)
    assert asked == []


def test_other_vectors_are_refused_by_what_is_other(tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigurationError, match=r"other weights \('a', now 'b'\)"):
        write(tmp_path, made_of={"weights": "b"})
    with pytest.raises(ConfigurationError, match="other dtype"):
        write(tmp_path, dtype="float32")


def test_what_does_not_fit_float16_is_named(tmp_path):
    large = VECTORS.copy()
    large[7, 1] = 7e4
    with pytest.raises(
        CptjaxError, match=r"unit 7 \(counted from 0\) does not fit float16: its largest number is 7e\+04"
    ):
        write(tmp_path / "half", large)
    assert np.array_equal(write(tmp_path / "whole", large, dtype="float32")[:], large)


def test_a_file_that_is_gone_or_cut_short_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "00002.npy").write_bytes(b"no array")
    with pytest.raises(CptjaxError, match=r"00002.npy is missing or damaged"):
        write(tmp_path)
    (tmp_path / "00002.npy").unlink()
    with pytest.raises(CptjaxError, match=r"00002.npy is missing"):
        write(tmp_path)
    assert json.loads((tmp_path / "vectors.json").read_text())["units"] == 23
