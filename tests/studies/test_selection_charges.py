"""What a study's selections cost, by their records: each once, and the parts of the runs that share it."""

import pytest
from selection_tables import flops_of, selection_table, write_selection_study

from cptjax.errors import ConfigurationError
from cptjax.studies.selection_charges import Charge, read_charges

ROWS = selection_table({"d4": 1.25, "semdedup": 1.1, "whole": 1.0})  # nine runs of each arm
KNOWN = {
    "random": flops_of(),
    "d4": flops_of(900.0, 90.0, 36.0),
    "semdedup": flops_of(450.0, 45.0, 36.0),
}


def test_each_is_counted_once_and_shared_by_the_runs_that_use_it(tmp_path):
    """The embedder serves the 18 runs of both arms, either selection its own nine."""
    charges = read_charges(str(write_selection_study(tmp_path / "study", ROWS, KNOWN)), ROWS, ["random", "d4", "whole"])
    assert charges["d4"] == Charge(("d4",), 900.0, 90.0, 36.0, 9, 18, 110.0 + 2.0)
    assert charges["d4"].total == 1026.0
    assert charges["random"] == Charge(("random",), runs=9) and charges["whole"] == Charge()


def test_an_embedder_of_other_weights_is_another_one(tmp_path):
    known = {**KNOWN, "semdedup": flops_of(450.0, 45.0, 36.0, "other weights", "/data/opt")}
    charges = read_charges(str(write_selection_study(tmp_path / "study", ROWS, known)), ROWS, ["d4", "semdedup"])
    assert (charges["d4"].embedder_runs, charges["d4"].share) == (9, 110.0 + 4.0)
    assert (charges["d4"].unknown, charges["semdedup"].unknown) == ((), ("/data/opt",))


def test_both_sizes_share_a_selection(tmp_path):
    rows = [*ROWS, *selection_table({"d4": 1.25}, size="B")]
    charge = read_charges(str(write_selection_study(tmp_path / "study", rows, KNOWN)), rows, ["d4"])["d4"]
    assert (charge.runs, charge.embedder_runs, charge.total) == (18, 27, 1026.0)
    assert charge.share == pytest.approx(990 / 18 + 36 / 27)


def test_what_a_selection_cost_is_never_guessed(tmp_path):
    def refused(name, message, known=KNOWN, change=lambda study: None):
        study = write_selection_study(tmp_path / name, ROWS, known)
        change(study)
        with pytest.raises(ConfigurationError, match=message):
            read_charges(str(study), ROWS, ["d4"])

    refused("old", "before selections kept their FLOPs.\n  Remove .*selection.json", {**KNOWN, "d4": None})
    refused("gone", "no selection any more", change=lambda study: (study / "d4" / "selection.json").unlink())
    refused("anew", "selected anew", change=lambda study: (study / "d4" / "selected.jsonl.gz").write_bytes(b"other"))
    refused("no_data", "which says what the run", change=lambda s: (s / "runs_A_0_rewarm" / "data.json").unlink())
    refused(
        "undeclared", "does not say what the arm 'random'", change=lambda study: (study / "declaration.json").unlink()
    )
