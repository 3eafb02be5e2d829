import json

import pytest

from cptjax.reporting.folder import RunFolder
from cptjax.reporting.goodput import Goodput, describe_goodput


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    return RunFolder(str(tmp_path))


def test_every_second_is_of_one_kind(folder, clock):
    goodput = Goodput(folder, clock, clock)
    clock.pass_(5)
    goodput.turn("compiling")
    clock.pass_(3)
    goodput.turn("steps")
    clock.pass_(40)
    with goodput.measure("evaluating"):
        clock.pass_(4)
        with goodput.measure("saving"):
            clock.pass_(2)
    clock.pass_(6)
    goodput.write(100)
    found = goodput.summary()
    assert found["starting"] == 5 and found["compiling"] == 3 and found["steps"] == 46
    assert found["evaluating"] == 4 and found["saving"] == 2 and found["lost"] == found["down"] == 0
    assert found["goodput"] == pytest.approx(46 / 60)
    assert describe_goodput(found).startswith("goodput 76.7%: of 60 s, steps 46, starting 5, evaluating 4")


def test_a_kill_takes_seconds_from_the_record_and_no_more(folder, clock):
    first = Goodput(folder, clock, clock)
    first.turn("steps")
    for step in range(100):
        clock.pass_(1)
        first.at(step + 1)  # killed after the last
    second = Goodput(folder, clock, clock)
    second.go_on_from(60)
    assert second.summary()["lost"] == pytest.approx(100 - 60, abs=10)


@pytest.mark.parametrize("content", ["[", '{"a": 1}', "[3]", '[{"seconds": 1}]'])
def test_a_damaged_record_is_set_aside_with_a_warning(folder, clock, content):
    (folder.path / "goodput.json").write_text(content)
    goodput = Goodput(folder, clock, clock)
    assert "goodput.json.damaged" in goodput.warning and (folder.path / "goodput.json.damaged").read_text() == content
    goodput.write(1)
    assert len(json.loads((folder.path / "goodput.json").read_text())) == 1


def test_steps_done_twice_and_the_time_between_starts_are_no_goodput(folder, clock):
    first = Goodput(folder, clock, clock)
    first.turn("steps")
    clock.pass_(100)
    first.write(50)  # 2 seconds a step; killed here
    clock.pass_(30)
    second = Goodput(folder, clock, clock)
    second.go_on_from(40)  # the last save was at 40: ten steps are done again
    second.turn("steps")
    clock.pass_(60)
    second.write(70)
    found = second.summary()
    assert found["down"] == 30 and found["lost"] == pytest.approx(20) and found["steps"] == pytest.approx(140)
    assert found["goodput"] == pytest.approx(140 / 190)
    assert [entry["first_step"] for entry in json.loads((folder.path / "goodput.json").read_text())] == [0, 40]
