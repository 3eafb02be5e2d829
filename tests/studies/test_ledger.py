"""The ledger: what counts as done, and what has changed since."""

import pytest

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.studies.ledger import plan_steps, refuse_changed, write_attempt
from cptjax.studies.step import Step

GIN = """
from __gin__ import dynamic_registration
from cptjax.jobs import export
JOB = "export"
CHECKPOINT = %gin.REQUIRED
OUTPUT_DIR = %gin.REQUIRED
DTYPE = "float32"
export.export.checkpoint = %CHECKPOINT
export.export.output_dir = %OUTPUT_DIR
export.export.dtype = %DTYPE
"""


@pytest.fixture
def study(tmp_path):
    """A study's folder and its two steps, the second using the first; `make` does a step."""
    gin = tmp_path / "e.gin"
    gin.write_text(GIN)
    folder = tmp_path / "study"

    def steps(dtype="float32"):
        return [
            Step("first", str(gin), {"CHECKPOINT": "/base", "DTYPE": dtype}),
            Step("second", str(gin), {"CHECKPOINT": "{first}"}),
        ]

    def do(planned, code=0):
        planned.folder.mkdir(parents=True, exist_ok=True)
        write_attempt(folder, planned, {"started": "now", "seconds": 1.5, "code": code})

    return folder, steps, do


def done(planned):
    return [step.done for step in planned]


def test_a_step_is_done_when_it_ended_well_and_what_it_made_is_there(study):
    folder, steps, do = study
    planned = plan_steps(steps(), folder)
    assert done(planned) == [False, False] and [step.job for step in planned] == ["export", "export"]
    do(planned[0], code=1)
    assert done(plan_steps(steps(), folder)) == [False, False]
    do(planned[0])
    again = plan_steps(steps(), folder)
    assert done(again) == [True, False]
    assert [attempt["code"] for attempt in again[0].record["attempts"]] == [1, 0]
    (folder / "first").rmdir()
    assert done(plan_steps(steps(), folder)) == [False, False]


def test_a_change_is_seen_in_the_step_and_in_those_that_use_it_and_refused_with_the_difference(study):
    folder, steps, do = study
    for planned in plan_steps(steps(), folder):
        do(planned)
    refuse_changed(plan_steps(steps(), folder))
    changed = plan_steps(steps("bfloat16"), folder)
    assert [step.changed for step in changed] == [True, True]
    with pytest.raises(ConfigurationError, match="other settings: 'first', 'second'") as refusal:
        refuse_changed(changed)
    assert "-DTYPE = 'float32'" in str(refusal.value) and "+DTYPE = 'bfloat16'" in str(refusal.value)
    assert "a step that it uses has changed" in str(refusal.value)
    (folder / "first").rmdir()
    (folder / "second").rmdir()
    refuse_changed(plan_steps(steps("bfloat16"), folder))  # removed: they are run anew


def test_a_study_that_was_moved_is_still_done(study, tmp_path):
    folder, steps, do = study
    for planned in plan_steps(steps(), folder):
        do(planned)
    folder.rename(tmp_path / "moved")
    assert done(plan_steps(steps(), tmp_path / "moved")) == [True, True]


def test_a_comment_or_another_line_changes_nothing(study, tmp_path):
    folder, steps, do = study
    do(plan_steps(steps(), folder)[0])
    (tmp_path / "e.gin").write_text("# a comment\n\n" + GIN)
    assert done(plan_steps(steps(), folder))[0]


def test_every_step_is_checked_before_any_runs_and_the_refusal_names_it(study):
    folder, steps, _ = study
    wrong = Step("third", steps()[0].gin_files, {"CHECKPOINT": "{first}", "DTIPE": "float32"})
    with pytest.raises(ConfigurationError, match=r"step 'third' of the study: the macro DTIPE is set.*"):
        plan_steps([*steps(), wrong], folder)


def test_a_damaged_record_is_named(study):
    folder, steps, do = study
    do(plan_steps(steps(), folder)[0])
    (folder / "steps" / "first.json").write_text("{}")
    with pytest.raises(CptjaxError, match=r"first.json is damaged"):
        plan_steps(steps(), folder)
