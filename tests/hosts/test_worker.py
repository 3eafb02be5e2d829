"""When a run was launched: the command's process, or, from Python, the call."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", [True, False])
def test_a_python_session_is_older_than_the_job_that_it_calls(command):
    met = "worker.meet_supervisor(); " if command else ""
    program = (
        f"import time; from cptjax.hosts import worker; {met}time.sleep(0.5); print(time.time() - worker.launched())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (float(done.stdout) > 0.4) == command, done
