"""The laws of a finished study, as steps: each fit reads the study's table of its arm."""

import pytest
from study_tables import table, write_study

from cptjax.errors import ConfigurationError
from cptjax.studies.fits import law_steps

FITS = [{"name": "first", "arm": "filtered", "LAW": "chinchilla"}]


def test_a_fit_reads_its_arms_table(tmp_path):
    study = write_study(tmp_path / "study", table(lambda n: 2.0))
    path = study / "conclusion" / "tables" / "filtered.jsonl"
    path.parent.mkdir()
    path.write_text("")
    (step,) = law_steps(str(study), FITS, {"RESAMPLES": 10})
    assert step.settings == {"RESAMPLES": 10, "RUNS": str(path), "LAW": "chinchilla"}
    with pytest.raises(ConfigurationError, match="no table of the arm 'raw'.*it has 'filtered'"):
        law_steps(str(study), [{**FITS[0], "arm": "raw"}])


def test_a_study_that_has_not_concluded_is_sent_to_its_end(tmp_path):
    with pytest.raises(ConfigurationError, match="no table of runs.*\n  Run the study to its end first"):
        law_steps(str(tmp_path), FITS)
