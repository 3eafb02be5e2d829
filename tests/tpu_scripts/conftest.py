"""A cloud of this machine's own folders: nothing here leaves it."""

import sys
from pathlib import Path

import pytest
from tpu_cloud import SCRIPTS, TPUS, WHERE, Cloud, write_program


@pytest.fixture
def cloud(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "workers").mkdir()
    write_program(
        tmp_path / "bin/gcloud", f'exec "{sys.executable}" -S -E "{Path(__file__).parent}/stand_in_gcloud.py" "$@"'
    )
    write_program(tmp_path / "bin/hostname", 'echo "t1v-n-$WORKER"')
    return Cloud(tmp_path)


@pytest.fixture
def pod(cloud):
    """A queued resource of two slices, a worker each, on which the worker's scripts lie where setup.sh puts them."""
    assert cloud.run("create", *WHERE, *TPUS, "--slices=2").returncode == 0
    for home in (cloud.folder / "workers").iterdir():
        (home / "cptjax").mkdir()
        (home / "cptjax/tpu_scripts").symlink_to(SCRIPTS)
    return cloud
