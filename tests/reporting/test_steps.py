import json

import numpy as np
import pytest

from cptjax.errors import CptjaxError
from cptjax.reporting.metrics import MetricsWriter
from cptjax.reporting.progress import Progress
from cptjax.reporting.steps import MOST_SKIPPED, StepLog


def metrics(loss=1.5, skipped=0.0):
    return {"loss": np.float32(loss), "gradient_norm": np.float32(1), "skipped": np.float32(skipped)}


@pytest.fixture
def log(tmp_path):
    writer = MetricsWriter(tmp_path)
    yield StepLog(writer, Progress(100, 64, show=False), 64)
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
    StepLog(writer, Progress(100, 64, show=False), 64, behind=False).push(1, metrics(3.0))
    assert [line["step"] for line in written(tmp_path)] == [1]
    writer.close()


def test_many_skipped_steps_in_a_row_end_the_run(log):
    for step in range(1, MOST_SKIPPED):
        log.push(step, metrics(np.nan, 1.0))
    log.push(MOST_SKIPPED, metrics(1.0, 0.0))  # a good one in between: counted anew
    for step in range(MOST_SKIPPED + 1, 2 * MOST_SKIPPED + 1):
        log.push(step, metrics(np.nan, 1.0))
    with pytest.raises(CptjaxError, match=f"the last {MOST_SKIPPED} steps, up to step {2 * MOST_SKIPPED}"):
        log.pause()
