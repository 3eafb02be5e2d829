"""A short run of the reuse recipe, from the real checkpoint, that the tests of the jobs share."""

import pytest
from commands import run_main, write_corpus


@pytest.fixture(scope="session")
def recipe(shared_data, tmp_path_factory):
    """Settings of a short run of the reuse recipe from the real checkpoint; runs share their packed rows."""
    folder = tmp_path_factory.mktemp("corpora")
    general = write_corpus(folder / "general.jsonl.gz", 300)
    target = write_corpus(folder / "target.jsonl.gz", 400, seed=5)
    return [
        "gin/recipes/reuse.gin",
        f"HF_CHECKPOINT='{shared_data / 'stories260K'}'",
        f"GENERAL='{general}'",
        f"TARGET='{target}'",
        f"ROWS_DIR='{folder / 'rows'}'",
        "SEQUENCE_LENGTH=64",
        "BATCH_TOKENS=512",
        "TRAIN_TOKENS=20480",
        "BASE_FINAL_LR=5e-4",
        "SAVE_EVERY=2048",
        "EVAL_EVERY=8192",
    ]


@pytest.fixture(scope="session")
def finished_run(recipe, tmp_path_factory):
    """The folder of that run, never interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, run_main(*recipe, f"OUTPUT_DIR='{folder}'")
