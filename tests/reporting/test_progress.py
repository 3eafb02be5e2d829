"""The progress line, on a terminal and in a log."""

import contextlib
import io
import os
import pty

import pytest

from cptjax.counts import count
from cptjax.reporting import progress as module
from cptjax.reporting.progress import Progress, duration


def test_a_line_says_step_loss_learning_rate_speed_and_time_left():
    progress = Progress(1000, 4096, stream=io.StringIO())
    progress._seconds_per_step = 0.5
    line = progress.line(40, {"loss": 1.23456, "learning_rate": 3e-4})
    assert line == "step   40/1000  loss 1.2346  lr 3.00e-04  8.19k tokens/s  ETA 8m00s"


def test_a_log_gets_the_first_lines_then_few_then_the_last():
    stream = io.StringIO()
    progress = Progress(500, 100, stream=stream)
    for step in range(1, 501):
        progress.update(step, {"loss": 1.0})
    progress.close()
    shown = [int(line.split("/")[0].split()[1]) for line in stream.getvalue().splitlines()]
    assert shown == [1, 2, 3, 500]


def test_a_log_gets_a_line_when_half_a_minute_has_gone(monkeypatch):
    clock = iter(range(0, 100000, 10))  # every look at the clock takes ten seconds
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    progress = Progress(100, 100, stream=stream)
    for step in range(1, 13):
        progress.update(step, {})
    assert [line.split("/")[0] for line in stream.getvalue().splitlines()] == [
        f"step {step:>3}" for step in (1, 2, 3, 5, 7, 9, 11)
    ]


def test_a_pause_is_not_counted_as_training(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress(10, 100, stream=io.StringIO())
    progress.update(1, {})
    now[0] = 1.0
    progress.update(2, {})
    progress.pause()
    now[0] = 500.0
    progress.resume()
    now[0] = 501.0
    progress.update(3, {})
    assert "100 tokens/s" in progress.line(3, {})
    progress.pause()
    now[0] = 900.0
    progress.update(4, {})  # without `resume` this step is not measured at all
    assert "100 tokens/s" in progress.line(4, {})


def test_a_silent_one_says_nothing():
    stream = io.StringIO()
    progress = Progress(2, 1, show=False, stream=stream)
    progress.update(1, {"loss": 1.0})
    progress.say("hello")
    progress.close()
    assert stream.getvalue() == ""


def everything(terminal: int) -> bytes:
    """What was written to the other side of a pseudo-terminal that is closed now: reading past it is an error there."""
    found = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 4096):
            found += chunk
    return found


def test_a_terminal_has_one_line_rewritten_and_lines_said_above_it():
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        progress = Progress(3, 100, stream=terminal)
        for step in (1, 2, 3):
            progress.update(step, {"loss": 1.0 / step})
        progress.say("saved [not markup]")
        progress.close()
    shown = everything(ours).decode()
    os.close(ours)
    assert "saved [not markup]" in shown and "step 3/3  loss 0.3333" in shown
    assert shown.count("step 1/3") <= 1


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (950, "950"), (1234, "1.23k"), (123456, "123k"), (4.56e6, "4.56M"), (2e12, "2T")]
)
def test_numbers_as_people_say_them(number, text):
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (42.4, "42s"), (200, "3m20s"), (3600, "1h00m"), (18420, "5h07m"), (187200, "2d04h")],
)
def test_times_as_people_say_them(seconds, text):
    assert duration(seconds) == text
