"""The browser that tests of pages look at them with."""

import shutil

import pytest
from absent import absent

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        absent(f"no browser: none of {', '.join(BROWSERS)} is installed", "CPTJAX_REQUIRE_CHROMIUM")
    return found
