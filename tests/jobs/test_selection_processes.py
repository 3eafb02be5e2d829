"""A selection by two processes, whose devices embed and cluster together, is the selection by one."""

import json
import shutil

import pytest
from commands import run_main, start, write_corpus
from test_select_data import lines_of

pytestmark = pytest.mark.slow


@pytest.fixture
def d4(shared_data, tmp_path):
    corpus = write_corpus(tmp_path / "text.jsonl.gz", 100)
    embedder = f"EMBEDDER='{shared_data / 'stories260K'}'"
    small = [
        "UNIT='passages'",
        "PASSAGE_TOKENS=48",
        "CLUSTERS=6",
        "R=0.4",
        "ITERATIONS=10",
        "embedders.Embedder.rows=64",
    ]
    return ["gin/recipes/select_d4.gin", f"INPUT='{corpus}'", embedder, *small]


def test_two_processes_select_what_one_does(d4, tmp_path):
    one, both = tmp_path / "one", tmp_path / "both"
    run_main(*d4, f"OUTPUT_DIR='{one}'", devices=4)
    # What two found is taken up by two: the first stages of another selection, as if it had been killed there.
    shutil.copytree(one / "stages" / "units", both / "stages" / "units")
    shutil.copytree(one / "stages" / "0_NearDuplicates", both / "stages" / "0_NearDuplicates")
    shutil.copy(one / "stages" / "begun.json", both / "stages" / "begun.json")
    running = start(2, *d4, f"OUTPUT_DIR='{both}'", devices=2)
    printed = [process.communicate(timeout=200)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed[0][-3000:] + printed[1][-3000:]
    assert "near_duplicates: done before" in printed[0] and "kept" in printed[0] and "kept" not in printed[1]
    alone, together = (lines_of(folder / "manifest.jsonl") for folder in (one, both))
    assert {line["stage"] for line in alone} == {None, "near_duplicates", "semantic_duplicates", "prototypes"}
    for mine, theirs in zip(alone, together, strict=True):
        if mine["score"] is not None:
            assert mine["score"] == pytest.approx(theirs["score"], abs=1e-4)  # sums in another order
        assert {**mine, "score": None} == {**theirs, "score": None}
    assert (one / "selected.jsonl.gz").read_bytes() == (both / "selected.jsonl.gz").read_bytes()
    assert json.loads((both / "selection.json").read_text())["kept_units"] == sum(line["kept"] for line in alone)
