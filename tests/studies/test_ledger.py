"""The ledger: what counts as done, and what has changed since."""

import itertools
import json

import pytest
from etils import epath

from cptjax.data.sources import content_identity, find_source
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.studies.ledger import plan_steps, recorded_steps, refuse_changed, refuse_outdated, write_attempt
from cptjax.studies.step import Step
from cptjax.studies.text import refuse_changed_text

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
    moments = itertools.count()

    def steps(dtype="float32"):
        return [
            Step("first", str(gin), {"CHECKPOINT": "/base", "DTYPE": dtype}),
            Step("second", str(gin), {"CHECKPOINT": "{first}"}),
        ]

    def do(planned, code=0):
        """One attempt at a step, planned as it is then, as the study makes it."""
        planned = next(step for step in plan_steps(steps(), folder) if step.step.name == planned.step.name)
        planned.folder.mkdir(parents=True, exist_ok=True)
        attempt = {"started": f"moment {next(moments)}", "seconds": 0.0, "code": None}
        write_attempt(folder, planned, attempt)
        if code is not None:
            write_attempt(folder, planned, {**attempt, "seconds": 1.5, "code": code})

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


def test_what_was_made_of_a_step_that_is_redone_does_not_pass_for_made_of_the_new_one(study):
    folder, steps, do = study
    first, second = plan_steps(steps(), folder)
    do(first)
    do(second)
    assert done(plan_steps(steps(), folder)) == [True, True]
    refuse_outdated(plan_steps(steps(), folder))
    (folder / "first").rmdir()
    planned = plan_steps(steps(), folder)
    assert done(planned) == [False, False]
    with pytest.raises(ConfigurationError, match="second: made of 'first', which is to be run again") as refusal:
        refuse_outdated(planned)
    assert str(refusal.value).endswith(f"\n    {folder / 'second'}")
    do(first)
    with pytest.raises(ConfigurationError, match="made of 'first' as it was before"):
        refuse_outdated(plan_steps(steps(), folder))
    (folder / "second").rmdir()
    planned = plan_steps(steps(), folder)
    refuse_outdated(planned)
    assert done(planned) == [True, False]
    do(second)
    assert done(plan_steps(steps(), folder)) == [True, True]


def test_what_was_begun_and_killed_is_known_too(study):
    folder, steps, do = study
    first, second = plan_steps(steps(), folder)
    do(first)
    do(second, code=None)
    (attempt,) = recorded_steps(folder)[1]["attempts"]
    assert attempt["code"] is None and attempt["used"] == {"first": "moment 0"}
    refuse_outdated(plan_steps(steps(), folder))  # it goes on
    (folder / "first").rmdir()
    with pytest.raises(ConfigurationError, match="second: made of 'first'"):
        refuse_outdated(plan_steps(steps(), folder))


def test_text_that_changed_since_a_step_was_done_is_refused_while_another_step_would_read_it(study, tmp_path):
    folder, steps, do = study
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "a"}\n')
    do(plan_steps(steps(), folder)[0])
    files = content_identity(find_source("general", str(text)))
    (folder / "first" / "data.json").write_text(json.dumps({"general": {"given": str(text), "files": files}}))
    refuse_changed_text(plan_steps(steps(), folder))
    text.write_text('{"text": "b"}\n')
    with pytest.raises(ConfigurationError, match="other text than its finished steps have read: 'first'") as refusal:
        refuse_changed_text(plan_steps(steps(), folder))
    assert "text: general" in str(refusal.value) and "1 of them changed or gone, 1 new" in str(refusal.value)
    assert f"\n    {folder / 'first'}" in str(refusal.value)
    text.unlink()
    with pytest.raises(ConfigurationError, match="there is no file or folder"):
        refuse_changed_text(plan_steps(steps(), folder))
    do(plan_steps(steps(), folder)[1])
    refuse_changed_text(plan_steps(steps(), folder))  # all is done: nothing would read it


def test_a_study_that_was_moved_is_still_done(study, tmp_path):
    folder, steps, do = study
    for planned in plan_steps(steps(), folder):
        do(planned)
    folder.rename(tmp_path / "moved")
    assert done(plan_steps(steps(), tmp_path / "moved")) == [True, True]


@pytest.mark.parametrize("name", ["a", "it's \n here", "x" * 90])
def test_the_name_of_the_studys_folder_says_nothing_of_the_work(study, tmp_path, name):
    _, steps, _ = study
    here, there = plan_steps(steps(), tmp_path), plan_steps(steps(), epath.Path(name))
    assert [step.digest for step in here] == [step.digest for step in there]
    assert "CHECKPOINT = '{study}/first'" in there[1].settings and "OUTPUT_DIR = '{study}/second'" in there[1].settings


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
