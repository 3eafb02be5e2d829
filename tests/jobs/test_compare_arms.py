"""Arms of a finished study held against each other by the command, and what gin/studies declares of it."""

import json

import pytest
from commands import write_corpus
from study_tables import table, write_study


def test_the_ratio_its_line_and_forgetting_are_written(run_here, tmp_path):
    """The table's ratio is 3 (N / 1e6)^0.2, but for a hundredth at B, and 1/p is 1.25: it grows, and filtered forgets 0.3 more
    per target gained."""
    rows = table(lambda n: 3 * (n / 1e6) ** 0.2 * (1.01 if n == 450_000 else 1), scatter=0.01)
    study = write_study(tmp_path / "study", rows)
    settings = (f"STUDY='{study}'", "DOMAIN_SHARE=0.8", f"OUTPUT_DIR='{tmp_path / 'out'}'")
    assert "would be compared at 4 sizes" in run_here("gin/jobs/compare_arms.gin", *settings, "--dry_run")
    assert not (tmp_path / "out").exists()
    said = run_here("gin/jobs/compare_arms.gin", *settings)
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    for unit in ("params", "params_non_embedding"):
        fit = found["fits"]["to_general_best"][unit]
        assert (fit["exponent"], fit["sizes"], fit["word"]) == (pytest.approx(0.2, abs=5e-3), 4, "it grows")
    assert {each["against_null"] for each in found["ratios"]} == {"above"}
    assert found["null"] == 1.25 and not found["smoke"]
    level = found["forgetting"][0]["levels"][1]
    assert level["difference"] == pytest.approx(0.3 * (5 - level["at"]))
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "to its lowest loss, N = parameters without embeddings: ratio ~ N^0.19" in page
    assert page in said and "no verdict" not in page
    assert "each at its own lowest: all sizes lie on one line" in page  # its ratios are all 1
    assert not any(name in page for name in ("at_best", "to_general_best", "params"))
    assert "nothing to do" in run_here("gin/jobs/compare_arms.gin", *settings)
    assert "another comparison" in run_here(
        "gin/jobs/compare_arms.gin", settings[0], "DOMAIN_SHARE=0.5", settings[2], code=2
    )


def test_an_interval_of_no_width_has_no_word(run_here, tmp_path):
    """Of equal ratios, exponents are what rounding makes of 0, of a power of N they are it: neither is growth that was found."""
    for name, exponent in (("equal", 0.0), ("power", -0.2)):
        study = write_study(tmp_path / name, table(lambda n, exponent=exponent: 3 * (n / 1e6) ** exponent))
        out = tmp_path / f"{name}_out"
        run_here("gin/jobs/compare_arms.gin", f"STUDY='{study}'", "DOMAIN_SHARE=0.5", f"OUTPUT_DIR='{out}'")
        found, page = json.loads((out / "comparison.json").read_text()), (out / "comparison.md").read_text()
        for reading, each in found["fits"].items():
            for fit in each.values():
                assert fit["exponent"] == pytest.approx(exponent if reading == "to_general_best" else 0, abs=1e-5)
            assert each["params"]["word"] is None
        assert found["fits"]["at_best"]["params_non_embedding"]["word"] is None
        assert "it grows" not in page and "-0.000" not in page
        assert page.count("all sizes lie on one line") == 2


def test_where_nothing_overlaps_the_page_says_so(run_here, tmp_path):
    study = write_study(tmp_path / "study", table(lambda n: 20.0, {"A": 1000}, seeds=2), smoke=True)
    said = run_here(
        "gin/jobs/compare_arms.gin", f"STUDY='{study}'", "DOMAIN_SHARE=0.05", f"OUTPUT_DIR='{tmp_path / 'out'}'"
    )
    assert "A smoke run: no verdict." in said and "at least 4, at least 4" in said
    assert "known at 0 of the 3 sizes" in said and "At no size is there a loss that all curves reach" in said
    assert "A: no loss on the target is on all curves" in said and "above 1/p" not in said  # 4 and 1/p = 20
    said = run_here(
        "gin/jobs/compare_arms.gin", f"STUDY='{study}'", "DOMAIN_SHARE=0.3", f"OUTPUT_DIR='{tmp_path / 'two'}'"
    )
    assert "a bound alone in all seeds; above 1/p in every seed, though with no interval" in said


def test_wrong_settings_are_refused(run_here, tmp_path):
    study = write_study(tmp_path / "study", table(lambda n: 2.0))
    for settings, message in (
        ((f"STUDY='{tmp_path}'", "DOMAIN_SHARE=0.5"), "Run the study to its end first"),
        ((f"STUDY='{study}'", "DOMAIN_SHARE=17.4"), "DOMAIN_SHARE = 17.4"),
        ((f"STUDY='{study}'", "DOMAIN_SHARE=0.5", "GENERAL_ARM='raw'"), "no runs of the arm 'raw'"),
        ((f"STUDY='{study}'", "DOMAIN_SHARE=0.5", "FORGOTTEN='held_out'"), "is the arms' target"),
    ):
        said = run_here("gin/jobs/compare_arms.gin", *settings, f"OUTPUT_DIR='{tmp_path / 'out'}'", code=2)
        assert message in said


@pytest.mark.parametrize("bar", [None, "file"])
def test_the_measures_of_the_whole_study_are_declared(run_here, tmp_path, bar):
    """All sizes, each with its curves; a bar exam is asked where one is named. Nothing starts."""
    rows = table(lambda n: 2.0)
    rows += [{**row, "arm": "matched"} for row in rows if row["arm"] == "unfiltered"]
    study = write_study(tmp_path / "study", rows)
    exam = tmp_path / "bar.jsonl"
    exam.write_text('{"id": 1, "question": "Who?", "choices": ["he", "she"], "answer": 0}\n')
    text = write_corpus(tmp_path / "text.jsonl.gz", 8)
    said = run_here(
        "gin/studies/domain_measures.gin",
        *(f"STUDY='{study}'", f"GENERAL='{text}'", f"HELD_OUT_DOMAIN='{text}'", "DOMAIN_SHARE=0.1"),
        *([f"BAR_EXAM='{exam}'"] if bar else []),
        f"OUTPUT_DIR='{tmp_path / 'out'}'",
        "--dry_run",
    )
    assert "6 steps" in said and "5. exams_E_seed0: evaluate" in said and "6. at_equal_loss: compare_arms" in said
    assert ("bar.jsonl" in said) == bool(bar) and "MATCHED_ON" in said
