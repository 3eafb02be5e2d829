"""The page of a selection: texts side by side as they are, sums that add up, and a map of whatever has embeddings."""

import json
import re

import numpy as np
import pytest

from cptjax.data.sources import find_source
from cptjax.data.units import make_units
from cptjax.reporting.selection_map import two_directions
from cptjax.reporting.selection_page import CHARACTERS, Costs, selection_page
from cptjax.scaling.repetition import sweep
from cptjax.selection.selected import Evidence, Reason, selection_of


@pytest.fixture
def page(tmp_path):
    texts = ["<script>alert(1)</script> one", "<script>alert(1)</script> two", "other " * 200, "more", "most"]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": f"<{i}>", "text": text}) + "\n" for i, text in enumerate(texts)))
    units = make_units(find_source("INPUT", str(path)), None, "documents", 1, tmp_path / "units")
    kept, instead = np.array([True, False, True, True, False]), np.array([-1, 0, -1, -1, -1])
    points = np.random.default_rng(0).normal(size=(5, 3))
    place = np.array([0.1, np.nan, 0.3, 0.5, 0.9])
    labels, table = np.array([0, -1, 0, 0, 0]), (("a", "b"), ("c", "7"))
    evidence = Evidence("D4", np.arange(5), points, labels, place, heading="A table", rows=table)
    reason = Reason("semantic_duplicates", "like {}")
    selection = selection_of(kept, reason, instead, score=np.full(5, 0.75), found=["two went"], evidence=[evidence])
    totals = {"units": 5, "kept_units": 3, "tokens": 100, "kept_tokens": 60}
    costs = Costs({"clusters": 61.0}, 70.0, 1e9, 2e8, 1000, 1e7)
    given = (totals, costs, ["read twice"], sweep(1000, 100, 1e7), "fixed_data")
    return selection_page("/folder", {"policy": {"Chain": [{"D4": {}}]}}, units, selection, *given)


def test_texts_are_text_and_numbers_add_up(page):
    assert "<script>" not in page and page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2
    assert "3 of 5 documents kept" in page and "By D4." in page and "two went." in page and "read twice." in page
    assert "Dropped pairs: semantic duplicates" in page and "dropped, 0.7500" in page
    assert "least typical, place 0.100" in page and "most typical, place 0.900" in page
    assert "other " * (CHARACTERS // 6) in page and "other " * (CHARACTERS // 6 + 1) not in page
    assert "1m01s" in page and "A table" in page
    # 1.2e9 of 6 x 1e7 x 1000 operations.
    assert (
        "the selection is 2% of it, as much as 20 tokens" in page
        and "1e9 for embedding and 2e8 for clustering and comparing;" in page
    )
    assert re.search(r"saves 40 tokens: 2\.4e9 operations", page)


def test_two_directions_are_the_principal_ones():
    generator = np.random.default_rng(1)
    points = generator.normal(size=(200, 4)) * [0.1, 5, 2, 0.1] + 3
    found, shares = two_directions(points)
    assert abs(np.corrcoef(found[:, 0], points[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(found[:, 1], points[:, 2])[0, 1]) > 0.99
    assert shares[0] > shares[1] > 0.1 and shares.sum() == pytest.approx(1, abs=0.01)
    assert two_directions(np.arange(4.0)[:, None])[0].shape == (4, 2)
