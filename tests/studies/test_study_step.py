"""Steps of a study: what their commands are, and what is refused before anything runs."""

import pytest

from cptjax.configuration.flags import parse_command
from cptjax.errors import ConfigurationError
from cptjax.studies.step import Step, check_steps


def test_folders_stand_where_steps_are_named_however_deep():
    step = Step(
        "arm",
        ["gin/a.gin", "gin/b.gin"],
        {"HF_CHECKPOINT": "{base}", "SOURCES": {"x": ["{study}/x y.jsonl", "ü.txt"]}, "TRAIN_TOKENS": 2e6},
    )
    assert step.uses() == ("base",)
    command = parse_command(step.arguments("runs/my study"))
    assert command.gin_files == ("gin/a.gin", "gin/b.gin")
    assert dict(command.bindings) == {
        "HF_CHECKPOINT": "'runs/my study/base'",
        "SOURCES": "{'x': ['runs/my study/x y.jsonl', 'ü.txt']}",
        "TRAIN_TOKENS": "2000000.0",
        "OUTPUT_DIR": "'runs/my study/arm'",
    }


def test_a_step_may_say_itself_what_it_writes():
    step = Step("scores", "gin/jobs/score.gin", {"OUTPUT": "{study}/scores.jsonl"}, output=None)
    assert step.arguments("s") == ["--gin_file=gin/jobs/score.gin", "--gin.OUTPUT='s/scores.jsonl'"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"name": "a b"}, "letters, digits"),
        ({"name": "study"}, "is not 'study'"),
        ({"name": ".."}, "letters, digits"),
        ({"settings": {"OUTPUT_DIR": "x"}}, "sets to the step's own folder"),
        ({"settings": {"--allow_imports": "os"}}, "a setting is a macro"),
        ({"settings": {"A": {"b": object()}}}, "cannot be given to another process"),
    ],
)
def test_wrong_steps_are_refused(given, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        Step(**{"name": "a", "gin_files": "x.gin", **given})


def test_a_step_uses_only_what_comes_before_it():
    base, arm = Step("base", "x.gin"), Step("arm", "x.gin", {"HF_CHECKPOINT": "{base}"})
    check_steps([base, arm])
    with pytest.raises(ConfigurationError, match="no step 'base' comes before"):
        check_steps([arm, base])
    with pytest.raises(ConfigurationError, match="two steps of the study are named 'base'"):
        check_steps([base, base])
    with pytest.raises(ConfigurationError, match="no steps"):
        check_steps([])


def test_what_steps_have_in_common_is_said_once_and_later_settings_win():
    step = Step("a", "x.gin", [{"SEED": 0, "REPLAY": 0.1}, {"REPLAY": 0.0}])
    assert step.arguments("s")[1:] == ["--gin.SEED=0", "--gin.REPLAY=0.0", "--gin.OUTPUT_DIR='s/a'"]
