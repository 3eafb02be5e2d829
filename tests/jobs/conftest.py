"""A short run of the reuse recipe, from the real checkpoint, that the tests of the jobs share."""

import pytest
from commands import run_main, short_run


@pytest.fixture(scope="session")
def recipe(shared_data, tmp_path_factory):
    """Settings of a short run of the reuse recipe from the real checkpoint; runs share their packed rows."""
    return short_run(shared_data, tmp_path_factory.mktemp("corpora"), 20480, 8192)


@pytest.fixture(scope="session")
def finished_run(recipe, tmp_path_factory):
    """The folder of that run, never interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, run_main(*recipe, f"OUTPUT_DIR='{folder}'")
