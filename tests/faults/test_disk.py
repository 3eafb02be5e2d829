"""Half-written, damaged, and no room left: each has a name, and no checkpoint that was good is lost."""

import shutil
import subprocess

import pytest
from absent import absent
from commands import run_main
from fault_runs import assert_same_bits

from cptjax.checkpoints.source import open_checkpoint
from cptjax.checkpoints.store import CheckpointStore


def without_the_end(whole, run, steps):
    """A copy of the run as it was before its last `steps` saves."""
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("finished.json", "report.html"))
    return CheckpointStore(run / "checkpoints").steps()[-steps:]


def test_a_half_written_checkpoint_is_ignored_with_a_warning(settings, whole, tmp_path):
    run = tmp_path / "run"
    *_, before, last = without_the_end(whole, run, 2)
    (run / "checkpoints" / f"{last:09d}" / "digests.json").unlink()  # what a kill in the middle of saving leaves
    printed = run_main(*settings, f"OUTPUT_DIR='{run}'")
    assert "ignoring" in printed and f"{last:09d}" in printed and "never finished" in printed
    assert f"resume: from step {before}" in printed
    assert_same_bits(run, whole)


def test_a_damaged_checkpoint_is_found_by_its_digest_and_the_one_before_is_offered(settings, whole, tmp_path):
    run = tmp_path / "run"
    before, last = without_the_end(whole, run, 2)
    folder = run / "checkpoints" / f"{last:09d}"
    file = max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    printed = run_main(*settings, f"OUTPUT_DIR='{run}'", code=1)
    assert (
        f"The checkpoint of step {last} is damaged" in printed and file.name in printed and "Traceback" not in printed
    )
    assert f"Step {before} is intact" in printed
    shutil.move(folder, tmp_path / "damaged")  # as it says
    assert f"resume: from step {before}" in run_main(*settings, f"OUTPUT_DIR='{run}'")
    assert_same_bits(run, whole)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 16 MiB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        absent(f"no file system can be mounted here: {mounted.stderr.decode().strip()}", "CPTJAX_REQUIRE_MOUNTS")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_run_with_the_last_good_checkpoint_intact(settings, whole, small_disk):
    run = small_disk / "run"
    arguments = [*settings, f"OUTPUT_DIR='{run}'"]
    one = sum(path.stat().st_size for path in (whole / "checkpoints").rglob("*") if path.is_file()) // 3
    filler = small_disk / "filler"
    filler.write_bytes(bytes(max(0, 16 * 2**20 - int(2.5 * one))))  # room for two checkpoints, and not for a third
    printed = run_main(*arguments, code=1)
    assert "Traceback" not in printed and "no space is left" in printed.lower()
    good = open_checkpoint(run).step
    store = CheckpointStore(run / "checkpoints")
    store.verify(good)
    filler.unlink()
    assert f"resume: from step {good}" in run_main(*arguments)
    assert_same_bits(run, whole)
