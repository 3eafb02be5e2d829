"""The benchmarks run, at sizes that measure nothing: what they print and keep is what docs/benchmarks.md says."""

import json

import pytest
from commands import run_main

pytestmark = pytest.mark.slow
SMALL = ["LENGTH=16", "ROWS=1"]


def test_a_step_is_compared_with_torchs_and_kept_as_a_line(tmp_path):
    pytest.importorskip("torch", reason="the peer is torch")
    pytest.importorskip("transformers", reason="the peer is transformers")
    given = ["gin/benchmarks/train_step_cpu.gin", *SMALL, "STEPS=1", f"OUTPUT='{tmp_path / 'found.jsonl'}'"]
    printed = run_main(*given)
    run_main(*given)
    assert "ratio" in printed and "processor" in printed
    first, second = map(json.loads, (tmp_path / "found.jsonl").read_text().splitlines())
    found = first["found"]
    assert found["parameters"] == 20_453_760 and found["batch"] == "1 x 16"
    assert found["ratio"] == pytest.approx(found["seconds_torch"] / found["seconds_ours"])
    assert second["versions"] == first["versions"] and first["machine"]["cores"]


def test_the_parts_of_a_step_are_timed():
    printed = run_main("gin/benchmarks/step_parts.gin", *SMALL, "REPEATS=1")
    for part in ("forward", "gradients", "attention", "mlp", "head"):
        assert f"{part}_seconds" in printed and f"{part}_of_peak" in printed
