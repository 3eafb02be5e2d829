"""An evaluation for each size and seed of a finished study."""

import pytest
from study_tables import table, write_study

from cptjax.errors import ConfigurationError
from cptjax.studies.measure_steps import measure_steps
from cptjax.studies.step import Step, check_steps

CURVES = ["unfiltered", "filtered"]


def test_a_step_for_each_size_and_seed_names_its_runs_wherever_the_study_lies(tmp_path):
    study = str(write_study(tmp_path / "study", table(lambda n: 2.0)))
    first, last = (
        Step("cloze", "gin/jobs/make_exam.gin", {}),
        Step("after", "gin/jobs/report.gin", {"X": "{exams_C_seed2}"}),
    )
    steps = measure_steps(
        study, "base", CURVES, sizes=["A", "C"], seeds=[0, 2], settings=[{"SAMPLES": 8}], first=[first], last=[last]
    )
    check_steps(steps)
    assert [step.name for step in steps] == [
        "cloze",
        "exams_A_seed0",
        "exams_A_seed2",
        "exams_C_seed0",
        "exams_C_seed2",
        "after",
    ]
    settings = steps[4].settings
    assert settings["BASE"] == "base 100" and settings["SAMPLES"] == 8
    assert settings["CURVES"] == {arm: [f"{arm} {tokens}" for tokens in ("1k", "2k", "4k")] for arm in CURVES}
    assert settings["CHECKPOINTS"]["base 100"] == f"{study}/runs_C_0_rewarm/base_100_seed2"
    assert settings["CHECKPOINTS"]["filtered 4k"] == f"{study}/runs_C_1_rewarm/filtered_after_100_4000_seed2"
    assert len(measure_steps(study, "base", CURVES)) == 4  # all sizes of the first seed


def test_what_the_study_has_not_is_refused(tmp_path):
    study = str(write_study(tmp_path / "study", table(lambda n: 2.0)))
    for wrong, message in (
        ({"sizes": ["D"]}, "no run of the arm 'base' at size 'D', seed 0.*the sizes A, B, C, E"),
        ({"seeds": [3]}, "at size 'A', seed 3"),
        ({"also": ["matched"]}, "no run of the arm 'matched'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            measure_steps(study, "base", CURVES, **wrong)
    with pytest.raises(ConfigurationError, match="Run the study to its end first"):
        measure_steps(str(tmp_path), "base", CURVES)
    with pytest.raises(ConfigurationError, match="'filtered' has several runs"):
        measure_steps(study, "filtered", ["unfiltered"])


def test_budgets_that_round_alike_keep_their_own_labels(tmp_path):
    rows = [{**row, "budget": 1001} if row["budget"] == 2000 else row for row in table(lambda n: 2.0)]
    (step,) = measure_steps(str(write_study(tmp_path / "study", rows)), "base", CURVES, sizes=["A"])
    assert step.settings["CURVES"] == {arm: [f"{arm} {tokens}" for tokens in ("1000", "1001", "4k")] for arm in CURVES}
    assert len(step.settings["CHECKPOINTS"]) == 7
    twice = [{**row, "budget": 1000} if row["budget"] == 1001 else row for row in rows]
    with pytest.raises(ConfigurationError, match="'unfiltered' has several runs of 1,000 tokens at A, seed 0"):
        measure_steps(str(write_study(tmp_path / "twice", twice)), "base", CURVES)
