"""Each step is logged once, exactly, and a kill costs at most the line being written."""

import json
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event

from cptjax.errors import CptjaxError
from cptjax.reporting.metrics import MetricsWriter, read_metrics

ROOT = Path(__file__).parents[2]


def events(folder) -> list[Event]:
    """TensorBoard events in the order of their files: records of length, its checksum, an Event, its checksum."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def steps(folder) -> list[int]:
    return [line["step"] for line in read_metrics(folder / "metrics.jsonl")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_floats_come_back_with_the_same_bits(tmp_path, values):
    (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
    writer = MetricsWriter(tmp_path)
    writer.log(1, {f"v{i}": value for i, value in enumerate(values)})
    writer.close()
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    for i, value in enumerate(values):
        assert line[f"v{i}"] == value or (math.isnan(value) and math.isnan(line[f"v{i}"]))


def test_a_line_is_strict_json_and_numpy_and_jax_scalars_are_numbers(tmp_path):
    import jax.numpy as jnp

    writer = MetricsWriter(tmp_path)
    writer.log(np.int64(3), {"loss": jnp.float32(0.1), "rows": np.int32(4), "bad": float("nan"), "low": -math.inf})
    text = (tmp_path / "metrics.jsonl").read_text()  # before close: every line is flushed
    writer.close()

    def refuse(constant):
        raise AssertionError(constant)

    line = json.loads(text, parse_constant=refuse)
    assert line == {"step": 3, "loss": float(np.float32(0.1)), "rows": 4, "bad": "nan", "low": "-inf"}
    assert np.float32(line["loss"]) == np.float32(0.1)


def test_tensorboard_gets_the_same_numbers(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.log(1, {"loss": 2.5, "stage": "general", "done": True})
    writer.close()
    scalars = [(e.step, v.tag, v.simple_value) for e in events(tmp_path) for v in e.summary.value]
    assert scalars == [(1, "loss", 2.5)]


def test_a_resumed_run_logs_each_step_once(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in range(1, 8):
        writer.log(step, {"loss": float(step)})
    writer.close()
    resumed = MetricsWriter(tmp_path, resume_at_step=4)
    assert steps(tmp_path) == [1, 2, 3, 4]
    for step in range(5, 9):
        resumed.log(step, {"loss": float(step)})
    resumed.close()
    assert steps(tmp_path) == list(range(1, 9))
    starts = [
        e.step for e in events(tmp_path) if e.session_log.status == 1
    ]  # SessionLog.START: purge from this step on
    assert starts == [0, 5]


def test_a_run_started_anew_forgets_everything(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.log(0, {"loss": 9.0})
    writer.log(1, {"loss": 1.0})
    writer.close()
    MetricsWriter(tmp_path).close()
    assert steps(tmp_path) == []


def test_what_was_logged_of_the_step_resumed_at_is_not_logged_again(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.log(4, {"loss": 1.0})
    writer.log(4, {"validation/english": 2.0})
    writer.close()
    resumed = MetricsWriter(tmp_path, resume_at_step=4)
    resumed.log(4, {"validation/english": 2.0})  # an evaluation made again: the same weights, the same numbers
    resumed.log(4, {"validation/law": 3.0})  # one that the first start did not come to
    resumed.log(5, {"loss": 1.0})
    resumed.close()
    assert steps(tmp_path) == [4, 4, 4, 5]


def test_an_unfinished_last_line_is_dropped_and_a_damaged_one_before_it_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    MetricsWriter(tmp_path, resume_at_step=5).close()
    assert path.read_text() == '{"step": 1}\n'
    path.write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(CptjaxError, match="metrics.jsonl, line 2"):
        MetricsWriter(tmp_path, resume_at_step=5)


def test_only_the_process_that_writes_writes(tmp_path):
    writer = MetricsWriter(tmp_path / "run", write=False)
    writer.log(1, {"loss": 1.0})
    writer.flush()
    writer.close()
    assert not (tmp_path / "run").exists()


LOGS_FOREVER = """
import sys
from cptjax.reporting.metrics import MetricsWriter
writer = MetricsWriter(sys.argv[1], resume_at_step=int(sys.argv[2]))
step = int(sys.argv[2])
while True:
    step += 1
    writer.log(step, {"loss": 1 / step})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_killed_and_resumed_each_step_is_there_once(tmp_path):
    for resume_at in (0, 20, 35):
        child = subprocess.Popen(
            [sys.executable, "-c", LOGS_FOREVER, str(tmp_path), str(resume_at)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        while int(child.stdout.readline()) < resume_at + 30:
            pass
        child.send_signal(signal.SIGKILL)
        child.communicate()
    writer = MetricsWriter(tmp_path, resume_at_step=60)
    writer.close()
    assert steps(tmp_path) == list(range(1, 61))


def test_curves_are_written_without_torch_which_stays_importable():
    """Importing it takes a second of every run's start. None in `sys.modules` would leave it lost to whoever wants it later."""
    program = "import sys, cptjax.reporting.events\nassert 'torch' not in sys.modules\ntry:\n    import torch\n"
    program += (
        "except ModuleNotFoundError as error:\n    assert error.name == 'torch' and 'halted' not in str(error), error\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
