"""What made a run, against what is here; and the run once more, number by number."""

import gzip
import json
import shutil

import pytest
from commands import run_main, write_corpus

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own_run(shared_data, tmp_path_factory):
    """A short run from a base and a text that a test may change."""
    folder = tmp_path_factory.mktemp("reproduce")
    shutil.copytree(shared_data / "stories260K", folder / "base")
    text = write_corpus(folder / "text.jsonl.gz", 200)
    run_main(
        "gin/recipes/rewarm.gin",
        f"HF_CHECKPOINT='{folder / 'base'}'",
        f"GENERAL='{text}'",
        f"TARGET='{text}'",
        "REPLAY=0.0",
        "PEAK_LEARNING_RATE=1e-3",
        "SEQUENCE_LENGTH=64",
        "BATCH_TOKENS=512",
        "TRAIN_TOKENS=5120",
        f"OUTPUT_DIR='{folder / 'run'}'",
    )
    return folder


def reproduce(folder, *settings, code=0):
    return run_main("gin/jobs/reproduce.gin", f"CHECKPOINT='{folder / 'run'}'", *settings, code=code)


def test_all_is_as_it_was_and_the_second_run_has_the_same_numbers(own_run):
    printed = reproduce(own_run)
    assert "can be repeated: all is as it was" in printed and "DIFFERS" not in printed
    assert "gin/recipes/rewarm.gin" in printed and "devices: platform: cpu" in printed
    assert "base: " in printed and "text: target" in printed and "jax: " in printed
    printed = reproduce(own_run, "RERUN=True", f"OUTPUT_DIR='{own_run / 'again'}'")
    assert "metrics.jsonl: all" in printed and "to the last bit" in printed
    lines = (own_run / "again" / "metrics.jsonl").read_text().splitlines()
    line = json.loads(lines[-1])
    lines[-1] = json.dumps({**line, next(name for name in line if name.endswith("loss")): 1.0})
    (own_run / "again" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    printed = reproduce(own_run, "RERUN=True", f"OUTPUT_DIR='{own_run / 'again'}'", code=1)
    assert "holds the run done again already" in printed
    assert "metrics.jsonl: 1 values differ, by at most" in printed and f"first line {len(lines)}, " in printed


def test_a_run_is_not_compared_with_itself_nor_with_what_stood_there_before(own_run, tmp_path):
    (own_run / "link").symlink_to(own_run / "run")
    printed = reproduce(own_run, "RERUN=True", f"OUTPUT_DIR='{own_run / 'link'}'", code=2)
    assert "is the run's own folder; the run would be compared with itself" in printed
    printed = reproduce(own_run, "RERUN=True", f"OUTPUT_DIR='{own_run / 'run' / 'again'}'", code=2)
    assert "is within the run's own folder" in printed
    shutil.copytree(own_run / "run", tmp_path / "earlier")
    printed = reproduce(own_run, "RERUN=True", f"OUTPUT_DIR='{tmp_path / 'earlier'}'", code=2)
    assert "is not new: what stands there would pass for the second run" in printed
    (tmp_path / "earlier" / "rerun.json").write_text('{"of": "/runs/other", "first_start": {}}')
    printed = reproduce(own_run, "RERUN=True", f"OUTPUT_DIR='{tmp_path / 'earlier'}'", code=2)
    assert "a rerun of another run, /runs/other" in printed


def test_what_is_not_known_is_not_said_to_be_as_it_was(own_run, tmp_path):
    for name in ("run.json", "config.gin"):
        shutil.copy(own_run / "run" / name, tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    content["starts"][-1]["directory"] = "/no/such/folder"
    (tmp_path / "run.json").write_text(json.dumps(content))
    printed = run_main("gin/jobs/reproduce.gin", f"CHECKPOINT='{tmp_path}'", code=1)
    assert "whether it can be repeated is not known" in printed and "note: it never finished" in printed
    assert "That folder is not here: relative paths are looked up in" in printed
    printed = run_main(
        "gin/jobs/reproduce.gin", f"CHECKPOINT='{tmp_path}'", "RERUN=True", f"OUTPUT_DIR='{tmp_path}_again'", code=1
    )
    assert "no log was compared" in printed


def test_what_is_different_here_is_named(own_run, tmp_path):
    run = own_run / "run"
    recorded = (run / "run.json").read_text()
    content = json.loads(recorded)
    content["starts"][-1]["versions"]["jax"] = "0.1.0"
    (run / "run.json").write_text(json.dumps(content))
    try:
        printed = reproduce(own_run)
    finally:
        (run / "run.json").write_text(recorded)
    assert "DIFFERS  jax: 0.1.0 then" in printed and "its numbers may differ, for these do: jax" in printed


def test_changed_text_or_base_or_configuration_means_that_it_cannot_be_repeated(own_run):
    text = own_run / "text.jsonl.gz"
    before = text.read_bytes()
    text.write_bytes(gzip.compress(gzip.decompress(before) + b'{"text": "one more"}\n'))
    try:
        assert "cannot be repeated here as it was: text: " in reproduce(own_run, code=1)
    finally:
        text.write_bytes(before)
    (own_run / "base").rename(own_run / "moved")
    try:
        printed = reproduce(own_run, code=1)
    finally:
        (own_run / "moved").rename(own_run / "base")
    assert "DIFFERS  base: " in printed and "There is nothing at" in printed
    config = own_run / "run" / "config.gin"
    written = config.read_text()
    config.write_text(written + "\nNO_SUCH_MACRO = 1\n")
    try:
        assert "DIFFERS  configuration: accepted then, the macro NO_SUCH_MACRO" in reproduce(own_run, code=1)
    finally:
        config.write_text(written)


def test_wrong_folders_are_refused(tmp_path):
    assert "is not a run's folder" in run_main("gin/jobs/reproduce.gin", f"CHECKPOINT='{tmp_path}'", code=2)
    (tmp_path / "run.json").write_text('{"starts": [{}]}')
    printed = run_main("gin/jobs/reproduce.gin", f"CHECKPOINT='{tmp_path}'", "RERUN=True", code=2)
    assert "no OUTPUT_DIR says where to" in printed
