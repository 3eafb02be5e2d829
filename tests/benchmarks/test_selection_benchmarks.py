"""The benchmarks of selection, at sizes that measure nothing: both sides do the same work, or there is no number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.benchmarks import minhash
from cptjax.benchmarks.kmeans import kmeans_peer
from cptjax.benchmarks.minhash import by_datasketch, minhash_peer
from cptjax.benchmarks.semdedup import one_size
from cptjax.errors import CptjaxError
from cptjax.selection.near_duplicates import groups
from cptjax.selection.shingles import character_shingles


@pytest.fixture
def text(tmp_path):
    lines = [f"{'abcdefghij' * 3} number {n // 2} of these" + "!" * (n % 2) for n in range(12)]
    (tmp_path / "text.txt").mkdir()
    for n, line in enumerate(lines):
        (tmp_path / "text.txt" / f"{n:02d}.txt").write_text(line)
    return str(tmp_path / "text.txt" / "*.txt")


def test_datasketchs_loop_finds_the_same_groups_or_there_is_no_number(text, monkeypatch):
    pytest.importorskip("datasketch", reason="the peer is datasketch")
    pytest.importorskip("rensa", reason="needs the `selection` extra")
    found = minhash_peer(text, 0.9, repeats=1)
    speed = found["documents_per_second_minhash"] / found["documents_per_second_datasketch_update"]
    assert found["documents"] == 12 and found["dropped_by_all"] == 6
    assert found["ratio_minhash_update"] == pytest.approx(speed) and found["ratio_exact_update_batch"] > 0
    monkeypatch.setattr(minhash, "by_datasketch", lambda texts, *given, **how: np.arange(len(texts)))
    with pytest.raises(CptjaxError, match="datasketch_update finds other groups"):
        minhash_peer(text, 0.9, repeats=1)


@given(st.lists(st.text("abc", min_size=1, max_size=20), min_size=1, max_size=8))
@settings(max_examples=8)
def test_datasketchs_loop_with_a_band_for_each_row_is_exact(texts):
    pytest.importorskip("datasketch", reason="the peer is datasketch")
    expected = groups([character_shingles(each, 3) for each in texts], 0.5)
    for batched in (False, True):
        assert np.array_equal(by_datasketch(texts, 0.5, 3, 64, (64, 1), batched), expected)


def test_k_means_is_timed_at_three_sizes_of_either():
    pytest.importorskip("faiss", reason="the peer is faiss-cpu")
    found = kmeans_peer(400, 8, 8, 2, 1)
    assert found["ratio"] == pytest.approx(found["seconds_faiss"] / found["seconds_ours"])
    assert found["objective_ours"] == pytest.approx(found["objective_faiss"], rel=0.01)
    assert {f"seconds_at_{n}_points" for n in (400, 800, 1600)} | {
        f"seconds_at_{n}_clusters" for n in (8, 16, 32)
    } < set(found)
    assert np.isfinite(found["exponent_in_points"]) and np.isfinite(found["exponent_in_clusters"])


def test_the_memory_of_one_size_is_looked_at(tmp_path):
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal(size=(300, 4)).astype(np.float16))
    found = one_size(str(tmp_path / "points.npy"), 200, tile=16)
    assert found["seconds"] > 0 and (found["mb"] is None or 0 <= found["mb"] < 2000)
