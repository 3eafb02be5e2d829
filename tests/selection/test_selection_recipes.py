"""The recipes of selection: what a header tells people to set is there to be set."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path
    for path in (ROOT / "gin" / "recipes").glob("*.gin")
    if 'include "gin/jobs/select_data.gin"' in path.read_text() or path.stem.startswith("domain_filter")
)
ACRONYMS = {"D4", "OPT", "SSL"}


def with_included(path):
    text = path.read_text()
    return text + "".join(with_included(ROOT / each) for each in re.findall(r'^include "(.+)"', text, re.MULTILINE))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_header_names_only_macros_that_are_there(path):
    header = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    macros = set(re.findall(r"^([A-Z][A-Z0-9_]*) =", with_included(path), re.MULTILINE))
    named = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b|\bR\b", header)) - ACRONYMS
    assert {"INPUT", "OUTPUT_DIR"} <= named and named <= macros


def test_every_recipe_of_the_job_is_looked_at():
    written = re.findall(r"(\w+)\.gin", (ROOT / "gin" / "jobs" / "select_data.gin").read_text())
    assert {path.stem for path in RECIPES} == set(written) - {"select_data"} and len(RECIPES) == 8
