"""What a run says of text that it reads more than once, and of a selection that it reads."""

import json

import pytest

from cptjax.data.plan import DataPlan, PlannedStage, SourceInfo
from cptjax.reporting.exposures import describe_exposures


@pytest.fixture
def plan():
    """2,560 rows of 10 tokens: 1,280 of `new`, which has more, and 1,280 of the 256 of `selected`, read twice before: 7 epochs."""
    sources = {name: SourceInfo(rows, 10 * rows, 1, 1, name, 10) for name, rows in (("new", 4000), ("selected", 256))}
    stage = PlannedStage("only", 160, {"new": 1, "selected": 1}, {"new": 1, "selected": 1})
    return DataPlan(sources, (stage,), 16, 0, {}, {"selected": 2.0})


def test_each_token_counts_as_often_as_it_is_read_in_all(plan, tmp_path):
    for name in ("new.jsonl", "selected.jsonl.gz"):
        (tmp_path / name).write_text("")
    sources = {"new": str(tmp_path / "new.jsonl"), "selected": str(tmp_path / "selected.jsonl.gz")}
    repeated, few = describe_exposures(plan, sources, 1e8)[0], describe_exposures(plan, sources, 1e3)
    assert repeated.startswith("repeats   selected: 2,560 tokens trained on for 17,920: 7 epochs, worth ")
    assert len(few) == 2 and "more than 4 epochs" in few[-1]  # no nats where the law was not fitted
    assert "nats per token" in describe_exposures(plan, sources, 1e8)[1]


def test_a_selection_is_called_one(plan, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "selected.jsonl.gz").write_text("")
    policy = {"Chain": [{"NearDuplicates": {}}, {"D4": {}}]}
    told = {"tokens": 52_000, "kept_tokens": 13_000, "policy": policy, "regime": "fixed_compute"}
    (tmp_path / "new" / "selection.json").write_text(json.dumps(told))
    (tmp_path / "b.txt").write_text("")
    found = describe_exposures(plan, {"new": str(tmp_path / "new"), "selected": str(tmp_path / "b.txt")}, 1e8)
    said = "repeats   new, a selection of 25% of 52k tokens (NearDuplicates then D4, fixed_compute): 40,000 selected tokens"
    assert found[0].startswith(said)
    assert "part of them is never read" in found[2]
