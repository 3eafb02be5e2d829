"""What a test needs of the machine, and is not there: the test is skipped, and fails where it is required, as in CI."""

import os
from typing import NoReturn

import pytest


def absent(what: str, required_by: str) -> NoReturn:
    """Skips the test that runs, because of `what`; fails it where the environment has the variable `required_by`."""
    if os.environ.get(required_by):  # CI: what cannot be checked has failed
        pytest.fail(f"{what} ({required_by})")
    pytest.skip(what)
