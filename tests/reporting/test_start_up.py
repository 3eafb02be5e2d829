"""Start-up by phase: the seconds add up to all that passed, and stand in the record, the log and the report."""

import json

from cptjax.reporting.folder import RunFolder
from cptjax.reporting.goodput import GOODPUT, Goodput
from cptjax.reporting.run_content import read_run
from cptjax.reporting.start_up import (
    DATA,
    EVALUATING,
    FIRST_STEP,
    IMPORTS,
    JOINING,
    PHASES,
    WEIGHTS,
    StartUp,
    describe_start_up,
)
from cptjax.reporting.summary import facts


def record():
    times = iter([13.0, 13.5, 14.5, 16.5, 17.0, 21.25])
    start_up = StartUp(10.0, clock=lambda: next(times))
    for phase in (IMPORTS, JOINING, DATA, WEIGHTS, EVALUATING):
        start_up.done(phase)
    start_up.compiled("hit", 21.0)
    start_up.done(FIRST_STEP)
    return start_up.record()


def test_the_phases_are_all_that_passed_from_the_launch_to_the_first_step():
    found = record()
    assert list(found["seconds"]) == list(PHASES) and sum(found["seconds"].values()) == 11.25
    before = "imports 3.0, joining 0.5, data 1.0, weights 2.0, evaluating 0.5"
    assert describe_start_up(found) == f"11.2 s: {before}, compiling 4.0 (from the cache), first step 0.2"


def test_what_was_compiled_before_its_phase_began_takes_nothing_from_another():
    start_up = StartUp(10.0, clock=lambda: 12.0)
    start_up.done(IMPORTS)
    start_up.compiled("off", 11.0)
    assert start_up.record()["seconds"]["compiling"] == 0.0 and start_up.record()["cache"] == "off"


def test_the_folder_and_the_report_have_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start("", ["main"], {"platform": "cpu", "kind": "cpu", "devices": 1})
    goodput = Goodput(folder)
    goodput.started(record())
    goodput.write(1)
    assert json.loads((folder.path / GOODPUT).read_text())[0]["start_up"] == record()
    (fact,) = [fact for fact in facts(read_run(folder.path)) if fact.name == "Start-up"]
    assert fact.value == "11.2 s" and "compiling 4.0 (from the cache)" in fact.detail
    (folder.path / GOODPUT).write_text('[{"start_up": 3}]')
    assert not read_run(folder.path).start_up
