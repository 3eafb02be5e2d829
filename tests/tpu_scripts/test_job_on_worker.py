"""The script that keeps a job on a worker, run here: what it says of a job is never half of one state and half of the next."""

import os
import subprocess

import pytest
from tpu_cloud import SCRIPTS


@pytest.fixture
def worker(tmp_path):
    """Calls job.sh in a home of its own, whose `hostname` lets the job end, and waits until its end is noted."""
    (tmp_path / "cptjax").mkdir()
    hostname = tmp_path / "bin" / "hostname"
    hostname.parent.mkdir()
    hostname.write_text(
        "#!/usr/bin/env bash\n"
        "touch $HOME/go\n"
        "for _ in {1..200}; do [ -e $HOME/cptjax_jobs/run/current/exit ] && break; sleep 0.05; done\n"
        "echo worker\n"
    )
    hostname.chmod(0o755)
    env = os.environ | {"HOME": str(tmp_path), "PATH": f"{hostname.parent}:{os.environ['PATH']}"}

    def call(*arguments: str) -> list[str]:
        command = ["bash", SCRIPTS / "on_worker" / "job.sh", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    return call


def test_a_job_that_ends_while_it_is_asked_for_is_running_or_has_its_code(worker):
    worker("start", "run", "first", "bash", "-c", "until [ -e $HOME/go ]; do sleep 0.05; done; exit 7")
    assert worker("status", "run") == ["cptjax-job", "worker", "first", "running", "-"]
    assert worker("status", "run") == ["cptjax-job", "worker", "first", "exited", "7"]
