"""The ledger adds up, survives JSON, and says what may be inherited from it."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.checkpoints.lineage import (
    Exposure,
    LearningRate,
    Lineage,
    Origin,
    Parameters,
    RunRecord,
    StageRecord,
)
from cptjax.errors import CptjaxError

ORIGIN = Origin("hugging_face", "/data/llama", "ab" * 32, Parameters(1000, 800, 1000))
EXPOSURE = Exposure("f" * 64, rows=10, tokens=100, epochs=0.5)
RATE = LearningRate(peak=1e-3, final=1e-4, schedule="cosine", history=((0, 1e-3), (500, 1e-4)))


def run(verb="initialize", exposures=None, rate=RATE, stages=None) -> RunRecord:
    stages = (StageRecord("general", 500, 2100, 10**18 + 1, {"english": 1.0}),) if stages is None else stages
    return RunRecord(verb, "/runs/r1", "c0ffee", stages, exposures or {"english": EXPOSURE}, rate, 3, "/data/llama")


def test_a_base_that_nothing_has_trained_has_no_learning_rate_and_no_verdict():
    lineage = Lineage(ORIGIN)
    assert lineage.final_learning_rate() is None and lineage.peak_learning_rate() is None
    assert lineage.annealed is None
    assert lineage.tokens == lineage.bytes == lineage.flops == 0
    assert lineage.exposures() == {}


def test_totals_are_sums_over_runs_and_stages_and_exact():
    lineage = Lineage(ORIGIN).then(run()).then(run("branch"))
    assert (lineage.tokens, lineage.bytes, lineage.flops) == (1000, 4200, 2 * 10**18 + 2)
    assert lineage.tokens_per_parameter == 1.0
    assert lineage.final_learning_rate() == 1e-4


def test_the_tokens_of_the_base_count_where_they_are_known():
    known = dataclasses.replace(ORIGIN, tokens=19_500)
    assert Lineage(known, (run(),)).tokens_per_parameter == 20.0


def test_exposures_survive_branch_and_not_initialize():
    first, second = run("initialize"), run("branch", {"english": EXPOSURE, "law": EXPOSURE})
    lineage = Lineage(ORIGIN, (first, second))
    assert lineage.exposures()["english"] == Exposure("f" * 64, 20, 200, 1.0)
    assert lineage.exposures()["law"] == EXPOSURE
    assert lineage.then(run("initialize")).exposures() == {"english": EXPOSURE}


def test_other_rows_under_the_same_name_are_not_added():
    other = dataclasses.replace(EXPOSURE, fingerprint="0123456789abcdef")
    trunk, branch = run("initialize", {"english": other}), run("branch")
    assert Lineage(ORIGIN, (trunk, branch)).exposures() == {"english": EXPOSURE, "english@0123456789ab": other}
    with pytest.raises(ValueError, match="different rows"):
        EXPOSURE + other


@pytest.mark.parametrize(
    ("peak", "final", "annealed"),
    [
        (1e-3, 1e-4, True),
        (2e-3, 2.0000001e-4, True),
        (1e-3, 1.1e-4, False),
        (1e-3, 0.0, True),
        (1e-3, 1e-3, False),
        (0.0, 0.0, False),
    ],
)
def test_annealed_is_a_tenth_of_the_peak_reached(peak, final, annealed):
    assert LearningRate(peak, final, "").annealed is annealed


def test_a_resumed_run_replaces_its_own_record():
    lineage = Lineage(ORIGIN, (run(), run("branch")))
    longer = run("branch", stages=(StageRecord("general", 900, 1, 1, {}),))
    assert lineage.ancestors.then(longer).runs == (run(), longer)


@pytest.mark.parametrize("verb", ["resume", "start", ""])
def test_only_verbs_that_start_a_run_are_recorded(verb):
    with pytest.raises(ValueError, match="a run starts by one of"):
        run(verb)


def test_an_origin_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="'hugging_face' or 'random'"):
        dataclasses.replace(ORIGIN, kind="pickle")


names = st.text(min_size=1, max_size=8)
counts = st.integers(0, 2**70)
rates = st.floats(0, 1)
stages = st.builds(StageRecord, names, counts, counts, counts, st.dictionaries(names, st.floats(0, 1), max_size=3))
exposures = st.builds(Exposure, names, counts, counts, st.floats(0, 1e6))
learning_rates = st.builds(LearningRate, rates, rates, names, st.lists(st.tuples(counts, rates), max_size=3).map(tuple))
runs = st.builds(
    RunRecord,
    st.sampled_from(["random", "initialize", "branch"]),
    names,
    st.none() | names,
    st.lists(stages, max_size=2).map(tuple),
    st.dictionaries(names, exposures, max_size=2),
    learning_rates,
    st.integers(0, 2**63),
    names,
)
origins = st.builds(
    Origin,
    st.sampled_from(["hugging_face", "random"]),
    names,
    names,
    st.builds(Parameters, st.integers(1, 2**50), counts, counts),
    st.none() | counts,
)


@given(st.builds(Lineage, origins, st.lists(runs, max_size=3).map(tuple)))
def test_json_gives_back_the_very_same(lineage):
    text = json.dumps(lineage.to_json())
    assert Lineage.from_json(json.loads(text)) == lineage


def test_totals_and_annealed_are_written_out_for_other_readers_and_not_believed():
    content = Lineage(ORIGIN, (run(),)).to_json()
    assert content["totals"] == {"tokens": 500, "bytes": 2100, "flops": 10**18 + 1, "tokens_per_parameter": 0.5}
    assert content["runs"][0]["annealed"] is True
    content["runs"][0]["annealed"] = False
    assert Lineage.from_json(content).annealed is True


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version 2"),
        ({"version": None}, "version None"),
        ({"runs": [{}]}, "incomplete or damaged"),
        ({"origin": {}}, "incomplete or damaged"),
        ({"runs": 3}, "incomplete or damaged"),
    ],
)
def test_what_is_not_a_lineage_is_refused(change, says):
    with pytest.raises(CptjaxError, match=says):
        Lineage.from_json({**Lineage(ORIGIN, (run(),)).to_json(), **change})


def test_something_else_altogether_is_refused():
    with pytest.raises(CptjaxError, match="version"):
        Lineage.from_json([])


def test_a_run_says_what_it_changed_of_the_model_only_where_it_did():
    plain, changed = run(), dataclasses.replace(run(), longer_context={"rope_theta": 5e5, "maximum_length": 8192})
    written = json.loads(json.dumps(Lineage(ORIGIN, (plain, changed)).to_json()))
    assert "longer_context" not in written["runs"][0]
    assert written["runs"][1]["longer_context"] == {"rope_theta": 5e5, "maximum_length": 8192}
    assert Lineage.from_json(written) == Lineage(ORIGIN, (plain, changed))
