"""The loss compiled for TPUs, where libtpu is installed: its memory does not depend on the vocabulary."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("topology", "dtype"), [("v5e:4x4", "float32"), ("v5p:4x2x2", "bfloat16")])
def test_temporary_memory_does_not_grow_with_the_vocabulary(topology, dtype):
    pytest.importorskip("libtpu")
    command = [sys.executable, str(Path(__file__).with_name("loss_on_tpus.py")), topology, dtype]
    without = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # one device, all optimisation
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=without).stdout
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert len(lines) == 4
    for small, large in (lines[:2], lines[2:]):
        assert large["vocabulary"] == 8 * small["vocabulary"] and large["MiB"] <= 1.01 * small["MiB"], lines
