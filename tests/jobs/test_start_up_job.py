"""A run tells how long it took to its first step, and finds in COMPILATION_CACHE what an earlier one compiled."""

import json

import pytest
from commands import run_main

pytestmark = pytest.mark.slow


def test_the_second_start_finds_the_step_in_the_cache(recipe, tmp_path):
    for name, cache, words in (("first", "miss", "(not in the cache)"), ("second", "hit", "(from the cache)")):
        settings = [*recipe, "TRAIN_TOKENS=10240", f"COMPILATION_CACHE='{tmp_path / 'compiled'}'"]
        printed = run_main(*settings, f"OUTPUT_DIR='{tmp_path / name}'")
        assert "start-up " in printed and words in printed
        record = json.loads((tmp_path / name / "finished.json").read_text())["start_up"]
        assert record["cache"] == cache and all(
            record["seconds"][phase] > 0 for phase in ("imports", "weights", "compiling")
        )
        assert "Start-up" in (tmp_path / name / "report.html").read_text(encoding="utf-8")
    assert any((tmp_path / "compiled").iterdir())
