"""A run's folder says what was run, is never mixed with something else, and holds no half-written file."""

import json
import os
import subprocess
import sys
import threading

import pytest

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import is_local, read_json, write_file
from cptjax.reporting.folder import RunFolder, git_state, versions

DEVICES = {"platform": "cpu", "kind": "cpu", "devices": 8}


def start(path) -> RunFolder:
    folder = RunFolder(path)
    folder.start("train.run.seed = 1", ["cptjax", "--gin_file=x.gin"], DEVICES)
    return folder


def test_a_new_folder_is_created_by_start_and_explains_the_run(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "first")
    assert not folder.path.exists()  # a dry run stops here
    folder.start("train.run.seed = 1", ["cptjax", "--gin_file=x.gin"], DEVICES)
    assert (folder.path / "config.gin").read_text() == "train.run.seed = 1\n"
    (entry,) = json.loads((folder.path / "run.json").read_text())["starts"]
    assert entry["command"] == ["cptjax", "--gin_file=x.gin"] and entry["devices"] == DEVICES
    assert entry["versions"]["python"] == sys.version.split()[0] and "jax" in entry["versions"]
    assert entry["time"].endswith("+00:00")


def test_each_start_is_recorded_and_the_latest_configuration_stands(tmp_path):
    start(tmp_path)
    RunFolder(tmp_path).start("train.run.seed = 2\n", ["again"], DEVICES)
    assert [entry["command"][0] for entry in read_json(tmp_path / "run.json")["starts"]] == ["cptjax", "again"]
    assert (tmp_path / "config.gin").read_text() == "train.run.seed = 2\n"


def test_finished_is_none_until_it_is(tmp_path):
    folder = start(tmp_path)
    assert folder.finished() is None
    folder.finish({"step": 12, "loss": 0.5})
    assert RunFolder(tmp_path).finished()["loss"] == 0.5


def test_a_folder_with_other_things_in_it_is_refused_and_named(tmp_path):
    for name in ("thesis.tex", "data"):
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigurationError, match="neither empty nor a run's folder") as caught:
        RunFolder(tmp_path)
    assert "data, thesis.tex" in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_file_and_an_empty_name_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is a file"):
        RunFolder(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="OUTPUT_DIR is empty"):
        RunFolder("")


def test_an_empty_folder_and_what_a_kill_left_in_it_are_welcome(tmp_path):
    (tmp_path / "run.json.123.part").write_text("{")
    (tmp_path / "rows" / "english-0123456789ab").mkdir(parents=True)
    (tmp_path / "rerun.json").write_text("{}")
    assert start(tmp_path).path.exists()


def test_a_second_process_is_told_that_the_folder_is_in_use_whatever_is_done_there(tmp_path):
    folder = start(tmp_path)
    lock = folder.hold()
    with pytest.raises(ConfigurationError, match="in use: another process is working in it"):
        RunFolder(tmp_path).hold()
    lock.close()
    RunFolder(tmp_path).hold().close()


def test_a_damaged_record_is_named(tmp_path):
    start(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CptjaxError, match="run.json is damaged"):
        RunFolder(tmp_path).start("", [], {})
    with pytest.raises(CptjaxError, match="nothing.json is missing"):
        read_json(tmp_path / "nothing.json")


def test_a_reader_sees_a_whole_file_at_every_moment(tmp_path):
    path, contents = tmp_path / "f", [b"a" * 300_000, b"b" * 300_000]
    write_file(path, contents[0])
    done = threading.Event()

    def write():
        for turn in range(30):
            write_file(path, contents[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_bytes() in contents
    writer.join()
    assert os.listdir(tmp_path) == ["f"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "inside").write_text("kept")
    with pytest.raises(OSError):
        write_file(tmp_path / "target", "x")  # a folder cannot be replaced by a file
    assert os.listdir(tmp_path) == ["target"] and os.listdir(tmp_path / "target") == ["inside"]


def test_buckets_are_told_from_disks():
    assert is_local("/runs/a") and is_local("runs/a") and not is_local("gs://bucket/runs")


def test_versions_and_commit():
    assert {"python", "jax", "flax", "optax", "orbax-checkpoint"} <= set(versions())
    state = git_state()
    assert state is None or set(state) == {"commit", "dirty"}


def test_reporting_imports_neither_jax_nor_tensorflow():
    program = (
        "import sys, cptjax.reporting.folder, cptjax.reporting.metrics, cptjax.reporting.progress\n"
        "import cptjax.checkpoints.lineage\n"
        "print([name for name in ('jax', 'tensorflow', 'tensorboardX', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
