import io

from cptjax.reporting.watch import watch


class Clock:
    """Seconds that pass by `step` each time somebody looks."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def lines(count, step, total):
    stream = io.StringIO()
    assert list(watch(range(count), total, "scoring", stream=stream, clock=Clock(step))) == list(range(count))
    return stream.getvalue().splitlines()


def test_short_work_leaves_no_line_in_a_log():
    assert lines(9, 1.0, 9) == []


def test_long_work_has_a_line_soon_and_then_now_and_then():
    assert lines(100, 1.0, 100) == [
        "  scoring: 10 of 100  ETA 1m30s",
        "  scoring: 40 of 100  ETA 1m00s",
        "  scoring: 70 of 100  ETA 30s",
    ]
    assert lines(45, 1.0, None) == ["  scoring: 10 in 10s", "  scoring: 40 in 40s"]


def test_a_terminal_shows_a_bar_that_goes_away():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    assert list(watch(iter("abc"), 3, "reading [general]", stream=stream)) == ["a", "b", "c"]
    assert "reading [general]" in stream.getvalue() and "3/3" in stream.getvalue()
