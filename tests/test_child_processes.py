"""A child that is asked to stop when we are, and, under nohup, not when a terminal goes away."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cptjax import processes
from cptjax.processes import run_command

ROOT = Path(__file__).parents[1]
PARENT = """
import signal, subprocess, sys
from cptjax.processes import passing_on
with passing_on() as passed:
    child = subprocess.Popen([sys.executable, "-c", "print('here', flush=True); input(); print('done')"], process_group=0)
    passed.to(child)
    print(child.wait(), len(passed.received), flush=True)
"""


@pytest.mark.parametrize("nohup, said", [(True, "done\n0 0\n"), (False, "-1 1\n")], ids=["nohup", "a terminal"])
def test_a_terminal_that_goes_away_ends_the_child_unless_nohup_says_otherwise(nohup, said):
    def set_up() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)

    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=set_up,
    )
    assert parent.stdout.readline() == "here\n"
    parent.send_signal(signal.SIGHUP)
    if not nohup:  # the child waits for a line that nobody sends: it ends by the signal alone
        parent.wait(timeout=30)
    assert parent.communicate("\n" if nohup else None, timeout=30)[0] == said


def test_a_job_asks_for_huge_pages_unless_we_were_told_something_else(monkeypatch, tmp_path):
    (tmp_path / "cptjax").mkdir()
    (tmp_path / "cptjax" / "main.py").write_text(
        "import os, sys\nsys.exit(os.environ['GLIBC_TUNABLES'] != sys.argv[1])"
    )
    monkeypatch.setattr(processes, "__file__", str(tmp_path / "cptjax" / "processes.py"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    (tmp_path / "cptjax" / "__init__.py").touch()
    assert run_command(["glibc.malloc.hugetlb=1"], directory=str(tmp_path)) == (0, None)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    assert run_command(["glibc.malloc.check=1"], directory=str(tmp_path)) == (0, None)
    assert run_command(["glibc.malloc.check=0"], {"GLIBC_TUNABLES": "glibc.malloc.check=0"}, str(tmp_path)) == (0, None)
