"""Run by test_selection_policies.py: a selection to its end, and the same again, killed as each of some files appears.

Every run is a process of its own, forked before JAX has started, so that what they import is imported once.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import cptjax.jobs.select_data
import cptjax.selection.embedded_policies  # noqa: F401
from cptjax import main

*SETTINGS, WHOLE, KILLED, STAGES = sys.argv[1:]


def start(folder: str) -> int:
    child = os.fork()
    if child:
        return child
    given = [each.replace("FOLDER", folder) for each in SETTINGS]
    flags = [f"--gin_file={each}" if each.endswith(".gin") else f"--gin.{each}" for each in given]
    code = 1
    try:
        code = main.main(flags)
    finally:
        sys.stdout.flush()
        os._exit(code or 0)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(path: Path, child: int) -> int:
    """Its exit code: SIGKILL's, unless it had ended before."""
    while not path.exists():
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return ended(child)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return ended(child)


if code := ended(start(WHOLE)):
    sys.exit(code)
codes = [killed_at(Path(KILLED) / name, start(KILLED)) for name in json.loads(STAGES)]
if code := ended(start(KILLED)):
    sys.exit(code)
print(json.dumps(codes))
