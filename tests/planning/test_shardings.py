"""Golden dumps: where every array of the shipped recipes' states lives on the pods that they are planned for."""

import pytest
from shardings import GOLDEN, RECIPES, sharding_lines


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_array_lives_where_it_did(recipe):
    """A change here is a change of what a pod holds and sends: read it, then `python tests/planning/shardings.py`."""
    assert sharding_lines(recipe) == (GOLDEN / f"{recipe}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_matrix_is_whole_on_a_device(recipe):
    for line in sharding_lines(recipe)[1:]:
        name, shape, _, cut = line.split("  ")
        if shape.count(",") >= 2 and "norm" not in name and "bias" not in name:
            assert "fsdp" in cut, line
