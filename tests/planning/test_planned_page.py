"""The plan that docs/tpu.md begins with."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
from marked_commands import ROOT, commands, cptjax_arguments  # noqa: E402

there = importlib.util.find_spec("libtpu") is not None or "CPTJAX_REQUIRE_LIBTPU" in os.environ


@pytest.mark.slow
@pytest.mark.skipif(not there, reason="libtpu is not installed; pip install -e .[aot] brings it")
def test_the_plan_of_the_page_can_be_begun_on_this_machine():
    arguments = [
        sys.executable,
        "-m",
        "cptjax.main",
        *cptjax_arguments(commands("docs/tpu.md")["tpu_plan"]),
        "--dry_run",
    ]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "v5e:4x4" in done.stdout
