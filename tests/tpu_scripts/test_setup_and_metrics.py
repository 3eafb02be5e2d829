"""What setup.sh brings to the workers, at which versions; and the metrics of a run, from a bucket and from a worker."""

import json
import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from tpu_cloud import AUTHOR, SCRIPTS, TPUS, WHERE, make_checkout


@pytest.fixture
def fresh(cloud):
    """TPU VMs that nothing has been done to, and a checkout here."""
    assert cloud.run("create", *WHERE, *TPUS).returncode == 0
    return cloud, make_checkout(cloud)


def test_every_worker_gets_the_commit_and_is_brought_up_to_date(fresh):
    cloud, checkout = fresh
    for text in ("first", "second"):
        (checkout / "what").write_text(text)
        subprocess.run(["git", "add", "."], cwd=checkout, check=True)
        subprocess.run(["git", *AUTHOR, "commit", "--quiet", "--message", text], cwd=checkout, check=True)
        done = cloud.run("setup", *WHERE)
        assert done.returncode == 0, done.stderr
        assert "pod is set up: 2 workers" in done.stderr
        head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=checkout, text=True)
        for worker in (0, 1):
            there = cloud.home(0, worker) / "cptjax"
            assert (there / "what").read_text() == text
            assert subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=there, text=True) == head
    asked = (cloud.home(0, 0) / "uv").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["--version", "venv", "pip", "pip", "--version", "pip", "pip"]
    there = cloud.home(0, 0) / "cptjax"
    assert asked[1].endswith(f"--python 3.12 {cloud.home(0, 0)}/cptjax_env")
    assert asked[2].endswith(f"--constraint {there}/tpu_scripts/constraints.txt --editable {there}[text,tpu]")


def test_what_is_not_committed_is_not_left_out_in_silence(fresh):
    cloud, checkout = fresh
    (checkout / "new").touch()
    refused = cloud.run("setup", *WHERE)
    assert refused.returncode == 2 and "?? new" in refused.stderr and not cloud.calls("scp")
    assert cloud.run("setup", *WHERE, "--ignore_uncommitted").returncode == 0


def test_a_worker_on_which_the_installation_fails_is_told_of(fresh):
    cloud, _ = fresh
    uv = cloud.folder / "bin/uv"
    uv.write_text(uv.read_text().replace("#!/bin/sh", '#!/bin/sh\n[ "$1 $WORKER" != "pip 0-1" ] || exit 1'))
    done = cloud.run("setup", *WHERE)
    assert done.returncode == 1 and "1 of the 2 workers of pod are set up" in done.stderr


def test_every_package_that_pyproject_names_is_pinned_within_its_bounds():
    pins = dict(line.split("==") for line in (SCRIPTS / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {_plain(name): version for name, version in pins.items()}
    project = tomllib.loads((SCRIPTS.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["text"], *extras["tpu"], *extras["selection"]]
    for requirement in map(Requirement, named):
        assert requirement.specifier.contains(pins[_plain(requirement.name)]), f"{requirement} against constraints.txt"


def _plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_metrics_come_from_a_bucket_as_they_are_written(cloud):
    folder = cloud.folder / "bucket/runs/x"
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": 3.5 - step, "loss/code": 2.25}) + "\n" for step in range(3)]
    (folder / "metrics.jsonl").write_text("".join(lines) + '{"step": 3, "lo')  # a line that is being written
    whole = cloud.run("metrics", "--run=gs://runs/x", "--every=0", "--lines=2")
    assert (whole.returncode, whole.stdout) == (0, "".join(lines[1:])), whole.stderr
    fields = cloud.run("metrics", "--run=gs://runs/x/", "--every=0", "--fields=step,loss/code,loss,mfu")
    assert fields.stdout.splitlines()[0] == "step\tloss/code\tloss\tmfu"
    assert fields.stdout.splitlines()[-1] == "2\t2.25\t1.5\t-"
    assert cloud.run("metrics", "--run=gs://runs/y", "--every=0").returncode == 1


def test_metrics_come_from_the_disk_of_the_first_worker(pod):
    folder = pod.home(0, 0) / "cptjax/runs/a b"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    done = pod.run("metrics", *WHERE, "--run=runs/a b", "--lines=1", "--every=0", "--fields=step")
    assert (done.returncode, done.stdout) == (0, "step\n2\n"), done.stderr
