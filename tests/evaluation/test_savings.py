"""What runs saved at equal loss, by hand: from lineages and documents to rows, tables and refusals."""

import types

import numpy as np
import pytest

from cptjax.checkpoints.lineage import LearningRate, Lineage, Origin, Parameters, RunRecord, StageRecord
from cptjax.errors import ConfigurationError
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.documents import DocumentLosses
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.savings import ask_curves, costs_of, curve_rows, curves_table
from cptjax.reporting.savings import savings_table
from cptjax.reporting.table_text import as_markdown

SCRATCH = Origin("random", "", "seed 0", Parameters(10, 8, 10))
PUBLISHED = Origin("hugging_face", "/models/base", "ab", Parameters(10, 8, 10))


def run(name, tokens, final=1e-5):
    stages = (StageRecord("all", tokens, 4 * tokens, 10 * tokens, {"law": 1.0}),)
    return RunRecord("branch", name, None, stages, {}, LearningRate(1e-3, final, "down"), 0, "")


def checkpoint(label, *runs, origin=SCRATCH):
    return Compared(label, types.SimpleNamespace(store=object(), lineage=Lineage(origin, runs)), None)


def measured(label, loss, documents=30):
    names = tuple(f"d{i}" for i in range(documents))
    spread = np.linspace(0.9, 1.1, documents)
    losses = DocumentLosses(names, loss * spread * 10, np.full(documents, 10), np.full(documents, 40))
    return Measurement(label, "/it", 1, 1, label, "t", {"law": "t"}, {"law": losses}, None, None)


BASE = checkpoint("base", run("/base", 50))
SEEN = [
    BASE,
    *(checkpoint(f"s{tokens}", run(f"/s{tokens}", tokens)) for tokens in (100, 200, 400)),
    checkpoint("continued", run("/base", 50), run("/continued", 60), run("/cooldown", 40)),
]
LOSSES = {"base": 5.0, "s100": 4.0, "s200": 3.0, "s400": 2.0, "continued": 3.0}
CURVES = {"scratch": ["s100", "s200", "s400"], "continued": ["continued"]}


def test_costs_are_the_lineages_less_what_the_base_had():
    costs = costs_of(SEEN[-1], BASE, None)
    assert (costs.tokens, costs.flops, costs.with_source) == (100, 1000, 1500)  # the cooldown is charged to it
    alone = costs_of(SEEN[2], BASE, None)
    assert (alone.tokens, alone.flops, alone.with_source) == (200, 2000, 2000)
    theirs = checkpoint("it", run("/it", 100), origin=PUBLISHED)
    assert costs_of(theirs, BASE, None).with_source is None and costs_of(theirs, BASE, 7000.0).with_source == 8000


def test_what_was_saved_is_read_off_at_equal_loss():
    """By hand: the scratch curve is at 3 nats after 200 tokens and 2,000 FLOPs; continuing took 100 and 1,000, 500 more with
    the source's."""
    asked = ask_curves(CURVES, SEEN, BASE, None, 0.25)
    rows, said = curve_rows(asked, [measured(*each) for each in LOSSES.items()], 0)
    found = {row["metric"]: row for row in rows}
    assert {row["subset"] for row in rows} == {"law: continued against scratch"}
    assert found["transferred_tokens"]["value"] == pytest.approx(100)
    assert found["flops_saved"]["value"] == pytest.approx(0.5)
    assert found["flops_saved_with_source"]["value"] == pytest.approx(0.25)
    assert found["sger_at_best"]["value"] == pytest.approx(4.0) and found["sger_null"]["value"] == 4.0
    assert found["flops_saved"]["checkpoint"] == "continued" and found["flops_saved"]["n"] == 30
    # Losses that rise and fall together stand at the same place of the curve, whichever documents are drawn.
    assert found["flops_saved"]["low"] == pytest.approx(0.5) == found["flops_saved"]["high"]
    # One point never gets to the scratch curve's last loss: no gain, and it is said.
    assert "efficiency_gain" not in found and any("no efficiency_gain" in sentence for sentence in said)
    assert "continued" in curves_table(rows)[1] and "100" in curves_table(rows)[1]
    markdown = as_markdown([savings_table(rows)])
    assert (
        "| law: continued against scratch 30 documents | continued | tokens saved" in markdown and "+0.250" in markdown
    )


def test_efficiency_gain_and_seeds():
    """By hand: the selected data's run is at the baseline's last loss, 2, after 200 of its 400 tokens."""
    seen = [
        *SEEN,
        checkpoint("d1", run("/d1", 99)),
        checkpoint("d1b", run("/d1b", 101)),
        checkpoint("d2", run("/d2", 200)),
    ]
    curves = {"random": ["s100", "s200", "s400"], "selected": [["d1", "d1b"], "d2"]}
    asked = ask_curves(curves, seen, BASE, None, None)
    losses = LOSSES | {"d1": 3.1, "d1b": 2.9, "d2": 2.0}
    rows, _ = curve_rows(asked, [measured(*each) for each in losses.items()], 0)
    found = {(row["checkpoint"], row["metric"]): row["value"] for row in rows}
    assert found["d2", "efficiency_gain"] == pytest.approx(0.5)
    assert found["d1 + d1b", "transferred_tokens"] == pytest.approx(100)  # both cost 100 and lose 3 on average


def test_what_is_no_curve_is_refused():
    warm = checkpoint("warm", run("/warm", 300, final=1e-3))
    hub = Compared("hub", types.SimpleNamespace(store=None), None)
    for curves, message in (
        ({"scratch": ["s100", "warm"], "continued": ["continued"]}, "'warm' is not annealed"),
        ({"scratch": ["s100", "hub"], "continued": ["continued"]}, "is a Hugging Face folder"),
        ({"scratch": ["s100", "s101"], "continued": ["continued"]}, "'s101', which is not among the checkpoints"),
        ({"scratch": ["s100"]}, "two curves at least"),
        ({"scratch": ["s100", "s100"], "continued": ["continued"]}, "two points of the same cost"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            ask_curves(curves, [*SEEN, warm, hub], BASE, None, None)
    with pytest.raises(ConfigurationError, match="DOMAIN_SHARE"):
        ask_curves(CURVES, SEEN, BASE, None, 1.5)
    assert ask_curves(None, SEEN, BASE, None, None) is None
    two = ("law", "prose")
    for curves, matched_on, sources in ((None, "law", two), (CURVES, "code", two), (CURVES, "law", ("law",))):
        with pytest.raises(ConfigurationError, match=f"MATCHED_ON = '{matched_on}'"):
            ask_curves(curves, SEEN, BASE, None, None, matched_on, sources)
    asked = ask_curves(CURVES, SEEN, BASE, None, None, "law", two)
    assert asked.identity["matched_on"] == "law"
    assert "matched_on" not in ask_curves(CURVES, SEEN, BASE, None, None).identity  # finished evaluations stay finished
