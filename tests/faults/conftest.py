"""Real runs on real processes, to be killed, starved and poisoned. Everything here carries the markers `faults` and `slow`."""

import gzip
import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))  # the commands that the tests of the jobs use

from commands import run_main, short_run, write_corpus  # noqa: E402


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def settings(shared_data, tmp_path_factory):
    """Settings of a short run from the real checkpoint, 240 steps of 8 rows, that saves every fourth step."""
    return short_run(shared_data, tmp_path_factory.mktemp("corpora"), 122880, 61440)


@pytest.fixture(scope="session")
def whole(settings, tmp_path_factory):
    """The folder of that run, never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_main(*settings, f"OUTPUT_DIR='{folder}'")
    return folder


@pytest.fixture(scope="session")
def poisoned(settings, tmp_path_factory):
    """A quarter of that run on general text of which one document, of several rows, is noise."""
    folder = tmp_path_factory.mktemp("poisoned")
    general = write_corpus(folder / "general.jsonl.gz", 300)
    with gzip.open(general, "rt", encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    rng = random.Random(0)
    noise = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(60))
    lines.insert(40, {"id": "noise", "source": "test", "text": noise})  # read when the loss has settled
    with gzip.open(general, "wt", encoding="utf-8") as stream:
        stream.write("".join(json.dumps(line) + "\n" for line in lines))
    kept = [s for s in settings if not s.startswith(("GENERAL", "ROWS_DIR", "TRAIN_TOKENS"))]
    spikes = ["SPIKE_WINDOW=12", "SPIKE_SIGMAS=5"]
    return [*kept, *spikes, "TRAIN_TOKENS=30720", f"GENERAL='{general}'", f"ROWS_DIR='{folder / 'rows'}'"]
