"""A short run of the reuse recipe, from the real checkpoint, that the tests of the jobs share."""

import pytest
from commands import ROOT, end_started, run_main, short_run, start

from cptjax.main import main


@pytest.fixture(autouse=True)
def nothing_left_running():
    """A test that fails leaves no processes behind."""
    yield
    end_started()


@pytest.fixture(scope="session")
def recipe(shared_data, tmp_path_factory):
    """Settings of a short run of the reuse recipe from the real checkpoint; runs share their packed rows."""
    return short_run(shared_data, tmp_path_factory.mktemp("corpora"), 20480, 8192)


@pytest.fixture(scope="session")
def finished_run(recipe, tmp_path_factory):
    """The folder of that run, never interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, run_main(*recipe, f"OUTPUT_DIR='{folder}'")


@pytest.fixture(scope="session")
def finished_by_two(recipe, tmp_path_factory):
    """The folder of that run on two processes, never interrupted, and what each of them printed."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    both = start(2, *recipe, f"OUTPUT_DIR='{folder}'")
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed[0][-3000:] + printed[1][-3000:]
    return folder, printed


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Runs cptjax.main in this process in the checkout, checks its exit code, and returns all that it printed."""
    monkeypatch.chdir(ROOT)

    def of(file, *settings, code=0):
        assert main([f"--gin_file={file}", *(s if s.startswith("--") else f"--gin.{s}" for s in settings)]) == code
        said = capsys.readouterr()
        return said.out + said.err

    return of
