"""A step whose settings are longer than an argument may be is run with just those settings."""

import subprocess
import sys

import pytest
from etils import epath

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.studies.ledger import plan_steps
from cptjax.studies.long_settings import long_file, on_the_command_line, write_long_settings
from cptjax.studies.step import Step

CONTRAST = {"better": "a", "worse": "b", "size": "A", "tokens": 1.0, "effect": 0.02}


def planned(study, points):
    settings = {"POINTS": points, "RATES": {}, "CONTRAST": CONTRAST}
    return plan_steps([Step("conclusion", "gin/jobs/conclude.gin", settings)], study)[0]


@pytest.fixture
def long(tmp_path):
    """A step with 1,200 points, which Linux would not take as an argument."""
    folder = "ü" * 20 + '{study}/runs\'s "folder"'
    return planned(epath.Path(tmp_path), [{"folder": f"{folder}/{n}", "seed": n} for n in range(1200)])


def test_long_settings_travel_in_a_file_and_are_the_same_settings(long, tmp_path):
    study = epath.Path(tmp_path)
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run([sys.executable, "-c", "", *long.arguments])
    flags = on_the_command_line(long, study)
    assert flags[-1] == f"--gin_file={long_file(long, study)}"
    assert not any(flag.startswith("--gin.POINTS") for flag in flags)
    write_long_settings(long, study)
    subprocess.run([sys.executable, "-c", "", *flags], check=True)
    assert configure(parse_command(flags)).settings == configure(parse_command(long.arguments)).settings


def test_short_settings_stay_on_the_command_line(tmp_path):
    step = planned(epath.Path(tmp_path), [])
    assert on_the_command_line(step, epath.Path(tmp_path)) == step.arguments
    write_long_settings(step, epath.Path(tmp_path))
    assert not list(tmp_path.iterdir())
