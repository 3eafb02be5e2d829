import json

import numpy as np
import pytest

from cptjax.errors import CptjaxError
from cptjax.reporting.metrics import MetricsWriter
from cptjax.reporting.progress import Progress
from cptjax.reporting.steps import StepLog

PATIENCE = 4


def metrics(loss=1.5, refused=0):
    numbers = {"loss": loss, "gradient_norm": 1, "skipped": refused > 0, "deviations": 0, "refused_in_a_row": refused}
    return {name: np.float32(value) for name, value in numbers.items()}


def advice(steps):
    return f"  read: steps {steps.start} to {steps.stop}"


@pytest.fixture
def log(tmp_path):
    writer = MetricsWriter(tmp_path)
    yield StepLog(writer, Progress(100, 64, show=False), 64, PATIENCE, advice)
    writer.close()


def written(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_written_when_the_next_is_pushed(log, tmp_path):
    log.push(1, metrics(3.0))
    assert written(tmp_path) == []
    log.push(2, metrics(2.0))
    assert [line["step"] for line in written(tmp_path)] == [1]
    log.pause()
    assert [(line["step"], line["loss"], line["tokens_read"]) for line in written(tmp_path)] == [
        (1, 3.0, 64),
        (2, 2.0, 128),
    ]


def test_on_a_cpu_it_is_written_at_once(tmp_path):
    writer = MetricsWriter(tmp_path)
    StepLog(writer, Progress(100, 64, show=False), 64, PATIENCE, advice, behind=False).push(1, metrics(3.0))
    assert [line["step"] for line in written(tmp_path)] == [1]
    writer.close()


def test_so_many_refused_steps_in_a_row_end_the_run_naming_what_they_read(log):
    for step in range(1, PATIENCE):
        log.push(step, metrics(np.nan, step))
    log.push(PATIENCE, metrics(1.0))  # a good one in between: counted anew
    for step in range(1, PATIENCE + 1):
        log.push(PATIENCE + step, metrics(np.nan, step))
    with pytest.raises(CptjaxError, match="4 steps one after another, up to step 8,") as error:
        log.pause()
    assert "read: steps 4 to 8" in str(error.value)


def test_a_step_that_is_passed_over_is_logged_as_such(log, tmp_path):
    log.push(1, metrics(3.0))
    log.passed_over(2)
    assert [(line["step"], line.get("passed_over")) for line in written(tmp_path)] == [(1, None), (2, 1.0)]


def test_the_loss_of_a_source_that_a_step_did_not_read_is_left_out(log, tmp_path):
    log.push(1, metrics() | {f"{kind}/{name}": np.float32(name == "b") for kind in ("loss", "tokens") for name in "ab"})
    log.pause()
    (line,) = written(tmp_path)
    assert line["loss/b"] == 1.0 and "loss/a" not in line and "tokens/b" not in line


def test_mfu_is_the_share_of_what_the_devices_could_do(tmp_path):
    writer = MetricsWriter(tmp_path)
    log = StepLog(writer, Progress(100, 64, show=False), 64, PATIENCE, advice, flops=0.01, behind=False)
    log.push(1, metrics())
    (line,) = written(tmp_path)
    assert line["mfu"] == pytest.approx(0.01 * line["tokens_per_second"] / 64)
    writer.close()
