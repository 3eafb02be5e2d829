"""Held-out documents in groups by a field of their records: sums made by hand, and changes over the same documents."""

import dataclasses
import math

import numpy as np
import pytest

from cptjax.data.rows import RowReader, RowWriter
from cptjax.errors import ConfigurationError
from cptjax.evaluation.by_field import MOST_GROUPS, field_values, group_rows, group_values, window_rows
from cptjax.evaluation.documents import DocumentLosses
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.table import results_table

COURTS = ["high", "low", None, "high", "low", "high"]
BASE = np.array([6.0, 1.0, 2.0, 4.0, 3.0, 5.0])
TOKENS = np.array([3, 2, 4, 5, 1, 2])


def measured(label, nats):
    names = tuple(f"d{i}" for i in range(6))
    law = DocumentLosses(names, np.asarray(nats), TOKENS, np.full(6, 10))
    windows = DocumentLosses(names, np.asarray(nats) - 0.5, TOKENS, np.full(6, 10))
    found = Measurement(label, "/runs/it", None, None, label, "tokenizer", {}, {"law": law}, None, None)
    return dataclasses.replace(found, in_windows={"law": windows})


@pytest.fixture
def reader(tmp_path):
    writer = RowWriter(str(tmp_path / "rows"), 8, 64)
    for number, court in enumerate(COURTS):
        writer.document(f"d{number}", 10, 3, {"court": court, "number": number % 2})
    facts = {"source": "law", "split": "validation", "files": (), "tokenizer": {}, "start": 1, "eos": 2, "settings": {}}
    writer.finish(**facts)
    return RowReader(str(tmp_path / "rows"))


def test_each_group_is_the_sum_of_its_documents(reader):
    values = {"tokenizer": {"law": field_values("law", reader, "court")}}
    assert values["tokenizer"]["law"] == ["high", "low", "(none)", "high", "low", "high"]
    base, other = measured("before", BASE), measured("after", BASE * 2)
    rows = group_rows([base, other], base, values, {"law": "court"}, seed=0)
    by_name = {(row["checkpoint"], row["subset"], row["metric"]): row for row in rows}
    assert {row["suite"] for row in rows} == {"loss_by_field"}
    for court in ("high", "low", "(none)"):
        chosen = np.array([court == each for each in values["tokenizer"]["law"]])
        loss = BASE[chosen].sum() / TOKENS[chosen].sum()
        row = by_name["before", f"law[court={court}]", "loss"]
        assert row["value"] == loss and row["n"] == chosen.sum()
        assert by_name["before", f"law[court={court}]", "perplexity"]["value"] == pytest.approx(math.exp(loss))
        bits = by_name["before", f"law[court={court}]", "bits_per_byte"]["value"]
        assert bits == pytest.approx(BASE[chosen].sum() / math.log(2) / (10 * chosen.sum()))
        assert by_name["after", f"law[court={court}]", "loss_change"]["value"] == pytest.approx(loss)
        change = by_name["after", f"law[court={court}]", "perplexity_change"]
        assert change["value"] == pytest.approx(math.exp(2 * loss) - math.exp(loss))
        assert court == "(none)" or change["low"] < change["value"] < change["high"]
    loss = by_name["before", "law[court=high]", "loss"]
    perplexity = by_name["before", "law[court=high]", "perplexity"]
    assert perplexity["low"] == pytest.approx(math.exp(loss["low"]))
    assert any(line.startswith("law[court=high]") and "(+" in line for line in results_table(rows))


def test_documents_in_windows_are_rows_of_their_own():
    base, other = measured("before", BASE), measured("after", BASE + 1)
    rows = window_rows([base, other], base, seed=0)
    (loss,) = (row["value"] for row in rows if (row["checkpoint"], row["metric"]) == ("before", "loss"))
    assert loss == pytest.approx((BASE - 0.5).sum() / TOKENS.sum()) and {row["suite"] for row in rows} == {
        "loss_in_windows"
    }
    assert any(line.startswith("law, in windows") for line in results_table(rows))


def test_a_group_that_the_base_lacks_has_no_change(reader):
    base, other = measured("before", BASE), measured("after", BASE)
    other = dataclasses.replace(other, tokenizer="another")
    values = {"tokenizer": {"law": ["high"] * 6}, "another": {"law": ["high"] * 5 + ["low"]}}
    rows = group_rows([base, other], base, values, {"law": "court"}, seed=0)
    low = [row["metric"] for row in rows if row["subset"] == "law[court=low]"]
    assert low == ["loss", "bits_per_byte", "perplexity"]


def test_fields_that_tell_nothing_apart_are_refused(reader, tmp_path):
    with pytest.raises(
        ConfigurationError,
        match=r"(?s)GROUP_BY: no held-out document of 'law' has the field 'year'; there is court, number",
    ):
        field_values("law", reader, "year")
    with pytest.raises(ConfigurationError, match="GROUP_BY names the source 'laws'; SOURCES has law"):
        group_values({"tokenizer": {"law": None}}, {"laws": "court"})
    writer = RowWriter(str(tmp_path / "many"), 8, 64)
    for number in range(MOST_GROUPS + 1):
        writer.document(f"d{number}", 10, 3, {"url": number})
    facts = {"source": "web", "split": "validation", "files": (), "tokenizer": {}, "start": 1, "eos": 2, "settings": {}}
    writer.finish(**facts)
    with pytest.raises(ConfigurationError, match="'url' of 'web' has 101 values"):
        field_values("web", RowReader(str(tmp_path / "many")), "url")
