"""The browser that tests of pages look at them with."""

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("CPTJAX_REQUIRE_CHROMIUM"):  # what cannot be checked has failed
            pytest.fail(f"no browser: none of {', '.join(BROWSERS)} is installed")
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found
