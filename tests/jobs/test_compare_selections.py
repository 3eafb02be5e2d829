"""What a finished study's selections save, by the command, and what gin/studies declares of it."""

import json

import pytest
from selection_tables import BUDGETS, PARAMS, flops_of, selection_table, write_selection_study

LARGEST = BUDGETS[-1] * PARAMS
KNOWN = {
    "random": flops_of(),
    "d4": flops_of(0.06 * LARGEST, 0.01 * LARGEST, 0.03 * LARGEST),
    "control": flops_of(comparing=0.01 * LARGEST),
}


def test_gains_are_written_with_and_without_the_charge(run_here, tmp_path):
    rows = selection_table({"d4": 1.25, "control": 1.0})
    study = write_selection_study(tmp_path / "study", rows, KNOWN, smoke=True)
    settings = (f"STUDY='{study}'", "BASELINE='random'", f"OUTPUT_DIR='{tmp_path / 'out'}'")
    said = run_here("gin/jobs/compare_selections.gin", *settings, "--dry_run")
    assert "d4 and control would be held against random on held_out" in said and not (tmp_path / "out").exists()
    said = run_here("gin/jobs/compare_selections.gin", *settings)
    found = json.loads((tmp_path / "out" / "gains.json").read_text())
    d4, control = found["gains"]
    assert [d4[name]["mean"] for name in ("marginal", "charged", "shared")] == pytest.approx([0.2, 0.1, 0.2 - 0.1 / 9])
    assert [each["cost"] for each in d4["break_even"].values()] == pytest.approx([0.5 * LARGEST] * 3)
    assert (control["marginal"]["mean"], control["charged"]["mean"]) == (pytest.approx(0.0), pytest.approx(-0.01))
    assert found["charges"]["d4"]["runs"] == 9 and found["smoke"]
    page = (tmp_path / "out" / "gains.md").read_text()
    assert page in said and "A smoke run: no verdict." in page and "not within the budgets" in page
    assert "+0.200 [+0.200, +0.200]" in page and "+0.100 [+0.100, +0.100]" in page and "2e6" in page
    assert "| d4 | d4 | 2.4e5 | 4e4 | 1.2e5 | 4e5 | 9 runs, its embedder 9 | 4.44e4 |" in page
    assert "nothing to do" in run_here("gin/jobs/compare_selections.gin", *settings)
    assert "another" in run_here("gin/jobs/compare_selections.gin", *settings, "ARMS=['d4']", code=2)


def test_wrong_settings_are_refused(run_here, tmp_path):
    study = write_selection_study(tmp_path / "study", selection_table({"d4": 1.25, "control": 1.0}), KNOWN)
    for settings, message in (
        ((f"STUDY='{tmp_path}'",), "Run the study to its end first"),
        ((f"STUDY='{study}'", "BASELINE='raw'"), "no runs of the arm 'raw'; it has 'random', 'd4', 'control'"),
        ((f"STUDY='{study}'", "ARMS=['d5']"), "no runs of the arm 'd5'"),
        ((f"STUDY='{study}'", "ARMS=['random']"), "name an arm beside the baseline 'random'"),
        ((f"STUDY='{study}'", "TEXTS=['far']"), "did not measure 'far'; it has held_out"),
    ):
        given = settings if "BASELINE" in str(settings) else (*settings, "BASELINE='random'")
        assert message in run_here(
            "gin/jobs/compare_selections.gin", *given, f"OUTPUT_DIR='{tmp_path / 'out'}'", code=2
        )
        assert not (tmp_path / "out").exists()


def test_the_measures_of_the_study_of_d4_are_declared(run_here, tmp_path):
    """On each text that the study names, near to its pool and far from it. Nothing starts."""
    rows = [
        {**row, **{f"bits_per_byte_{text}": row["bits_per_byte"] for text in ("pool", "near", "far")}}
        for row in selection_table({"d4": 1.25})
    ]
    rows = [{**row, "arm": "chosen_random"} if row["arm"] == "random" else row for row in rows]
    study = write_selection_study(tmp_path / "study", rows, {**KNOWN, "chosen_random": flops_of()})
    out = f"OUTPUT_DIR='{tmp_path / 'out'}'"
    said = run_here("gin/studies/d4_measures.gin", f"STUDY='{study}'", out, "--dry_run")
    assert "d4 would be held against chosen_random on held_out, pool, near and far" in said
