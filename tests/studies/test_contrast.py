"""What is said of two arms: rejects at its nominal rate where they differ in seed alone, finds what is there, and no more."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import binom

from cptjax.checkpoints.lineage import Exposure, LearningRate, Lineage, Origin, Parameters, RunRecord, StageRecord
from cptjax.errors import CptjaxError
from cptjax.reporting.table_text import as_latex
from cptjax.studies.arms import Contrast
from cptjax.studies.intervals import Measured, difference
from cptjax.studies.page import runs_table, study_page
from cptjax.studies.power import power_of, seeds_needed, simulated_null, smallest_effect
from cptjax.studies.rates import Bracket, next_rate
from cptjax.studies.savings import savings
from cptjax.studies.table import Run, by_point, epochs_of, trunk_of
from cptjax.studies.verdict import cost_of_seeds, judge, null_of

STUDIES = 1500
CONTRAST = Contrast("new", "old", "A", 1000, 0.05, "loss")


@pytest.mark.parametrize("seeds, mixed, trunks", [(3, 0.0, None), (5, 0.1, None), (3, 0.0, 0.2), (5, 0.1, 0.2)])
def test_an_a_a_study_rejects_at_its_nominal_rate(seeds, mixed, trunks):
    rejected = simulated_null(STUDIES, seeds, 40, 0.02, 0.3, mixed, trunk_deviation=trunks)
    low, high = binom.ppf([0.0005, 0.9995], STUDIES, 0.05)
    assert rejected <= high, f"{rejected} of {STUDIES} A/A studies reject"
    # Nor is it so wide that it could never reject: unequal variances are allowed for, which three seeds pay for.
    assert rejected >= low / 2


def test_percentiles_of_three_seeds_would_reject_far_too_often():
    """Why the interval is Student's, and no percentile of a bootstrap over seeds."""
    generator, rejected = np.random.default_rng(0), 0
    for _ in range(400):
        arms = generator.standard_normal((2, 3))
        drawn = [arm[generator.integers(3, size=(400, 3))].mean(axis=1) for arm in arms]
        low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
        rejected += low > 0 or high < 0
    assert rejected > 2 * 0.05 * 400


def test_a_shared_trunk_is_compared_within_itself():
    generator = np.random.default_rng(1)
    trunks = generator.standard_normal((4, 1))  # what the trunks do is a hundred times what is between the arms
    nats = 10 + np.repeat(trunks, 30, axis=1)
    one = Measured(nats - 0.02 + 0.001 * generator.standard_normal((4, 30)), np.ones(30), ("a", "b", "c", "d"))
    other = Measured(nats, np.ones(30), ("a", "b", "c", "d"))
    found = difference(one, other)
    assert found.paired and found.high < 0 and found.value == pytest.approx(-0.02, abs=0.002)
    apart = difference(one, dataclasses.replace(other, trunks=("e", "f", "g", "h")))
    assert not apart.paired and apart.low < 0 < apart.high
    # Two runs of one trunk are one observation, not two.
    twice = Measured(np.repeat(nats, 2, axis=0), np.ones(30), tuple("aabbccdd"))
    assert difference(twice, dataclasses.replace(other, trunks=tuple("efgh"))).clusters == 4


def test_power_is_what_a_simulation_finds():
    seeds, deviation, effect = 5, 0.02 * math.sqrt(2), 0.045
    generator, found = np.random.default_rng(2), 0
    units = np.ones(10)
    for _ in range(600):
        arms = [shift + 0.02 * generator.standard_normal((seeds, 1)) + np.ones((1, 10)) for shift in (0.0, effect)]
        names = [tuple(f"{arm}{seed}" for seed in range(seeds)) for arm in "ab"]
        found += difference(*(Measured(x, units, n) for x, n in zip(arms, names, strict=True)), resamples=50).high < 0
    told = power_of(seeds, effect, deviation, 0.0)
    assert found / 600 == pytest.approx(told, abs=0.06) and 0.5 < told < 0.99
    needed = seeds_needed(effect, deviation, 0.0)
    assert power_of(needed, effect, deviation, 0.0) >= 0.8 > power_of(needed - 1, effect, deviation, 0.0)
    assert power_of(seeds, smallest_effect(seeds, deviation, 0.0), deviation, 0.0) == pytest.approx(0.8, abs=1e-6)
    assert seeds_needed(0.01, deviation, documents=0.1) is None  # the documents alone leave too much open


def a_run(arm, seed, level, trunk="", budget=1000, flops=10.0):
    nats = level + 0.1 * np.sin(np.arange(20)) + 1e-3 * (seed - 1)
    documents = {
        "law": {"names": [str(i) for i in range(20)], "nats": nats.tolist(), "tokens": [1] * 20, "bytes": [3] * 20}
    }
    row = {
        "arm": arm,
        "size": "A",
        "seed": seed,
        "budget": budget,
        "budget_prior": 500 if trunk else None,
        "annealed": True,
        "target": "law",
        "trunk": trunk,
        "flops": flops,
        "flops_own": flops,
        "flops_with_trunk": flops + (100 if trunk else 0),
        "bits_per_byte": level,
        "run": f"study/step/{arm}{budget}seed{seed}",
    }
    return Run(row, documents, trunk or row["run"], 2.0)


def runs(advantage, seeds=3, **more):
    return [a_run("new", seed, 5 - advantage, **more) for seed in range(seeds)] + [
        a_run("old", seed, 5.0) for seed in range(seeds)
    ]


def test_the_verdict_is_the_interval_and_nothing_else():
    assert judge(runs(0.1), CONTRAST, smoke=False).word == "supported"
    assert judge(runs(-0.1), CONTRAST, smoke=False).word == "refuted"
    nothing = judge(runs(0.0), CONTRAST, smoke=False)  # it leaves out an advantage of 0.05
    assert nothing.word == "refuted" and "leaves out an advantage" in nothing.why
    wide = judge(runs(0.001), dataclasses.replace(CONTRAST, effect=1e-4), smoke=False)
    assert wide.word == "underpowered" and f"{wide.smallest:.4f}" in wide.why and wide.needed > 3
    for told in (judge(runs(0.1), CONTRAST, smoke=True), judge(runs(0.1, seeds=1), CONTRAST, smoke=False)):
        assert told.word == "no verdict"
    assert judge(runs(0.1, seeds=1), CONTRAST, smoke=False).as_json()["difference"]["low"] is None
    null = null_of(judge(runs(0.1), CONTRAST, smoke=False).difference, studies=200)
    assert null["studies"] == 200 and null["rejected"] <= binom.ppf(0.9995, 200, 0.05)
    # In pairs within shared trunks it is another analysis, of fewer degrees of freedom, that is simulated.
    found = dataclasses.replace(judge(runs(0.1), CONTRAST, smoke=False).difference, deviation=0.02, documents=1e-6)
    assert null_of(dataclasses.replace(found, paired=True), studies=200) != null_of(found, studies=200)
    assert null_of(judge(runs(0.1, seeds=1), CONTRAST, smoke=False).difference) is None
    raw = runs(0.1)
    raw[0].row["annealed"] = False
    assert judge(raw, CONTRAST, smoke=False).why == "the points compared are not annealed"
    with pytest.raises(CptjaxError, match="no run of 'old' at size 'A'"):
        judge(runs(0.1)[:3], CONTRAST, smoke=False)
    other = runs(0.1)
    other[0].documents["law"]["names"][0] = "another"
    with pytest.raises(CptjaxError, match="runs of the study were measured on different documents"):
        judge(other, CONTRAST, smoke=False)
    other = runs(0.1)
    for run in other[:3]:  # the whole of an arm, alike within itself
        run.documents["law"]["names"][0] = "another"
    with pytest.raises(CptjaxError, match="'new' and 'old' were measured on different documents of 'law'"):
        judge(other, CONTRAST, smoke=False)


def test_branches_off_one_plateau_have_one_trunk_wherever_they_leave_it():
    early, late = (trunk_of(f"/runs/study/runs_A_0_constant/trunk_1000_seed0, step {step}") for step in (4, 8))
    assert early == late == "runs_A_0_constant/trunk_1000_seed0" != trunk_of("/runs/runs_A_0_constant/trunk_1000_seed1")
    assert trunk_of("") == ""


@pytest.mark.parametrize(
    "verb, blend, epochs", [("branch", "law", 2.5), ("branch", "other", 0.5), ("initialize", "law", 0.5)]
)
def test_a_cooldown_has_read_its_text_as_often_as_trunk_and_cooldown_together(verb, blend, epochs):
    def ran(verb, epochs, blend):
        stage = StageRecord("a", 100, 300, 1000, {blend: 1.0})
        rate = LearningRate(1e-3, 0.0, "cosine")
        return RunRecord(verb, "r", None, (stage,), {blend: Exposure("f", 1, 100, epochs)}, rate, 0, "")

    base = Lineage(Origin("random", "", "seed 0", Parameters(10, 10, 10)))
    assert epochs_of(base.then(ran("random", 2.0, "law")).then(ran(verb, 0.5, blend)), "law") == epochs


def test_the_cost_of_a_verdict_counts_the_trunk_of_each_seed():
    found = [*runs(0.1, trunk="step/trunk1000seed0"), a_run("trunk", 0, 4.0, flops=100.0)]
    assert cost_of_seeds(found, CONTRAST, 7) == (7 * (10 + 10 + 100), 7 * 6.0)


def test_savings_are_read_off_the_annealed_runs_from_random_weights():
    scratch = [
        a_run("old", 0, level, budget=budget, flops=flops)
        for budget, level, flops in ((1, 6.0, 100.0), (2, 4.0, 400.0))
    ]
    continued = a_run("new", 0, 5.0, trunk="t", flops=50.0)
    (saving,) = savings(by_point([*scratch, continued]))
    assert saving.scratch == pytest.approx(200.0)  # half-way in the logarithm
    assert saving.describe().endswith("FLOPs saved +75%, and +25% with all of the trunk's")
    (beyond,) = savings(by_point([*scratch, a_run("new", 0, 3.0, trunk="t")]))
    assert beyond.scratch is None and "`old` takes more FLOPs" in beyond.describe()
    # Another arm from random weights (with replay, at other FLOPs) is another curve, not points of the same.
    other = [
        a_run("mixed", 0, level, budget=budget, flops=flops)
        for budget, level, flops in ((1, 5.9, 200.0), (2, 4.1, 800.0))
    ]
    both = {each.over: each.scratch for each in savings(by_point([*scratch, *other, continued]))}
    assert both == {"old": pytest.approx(200.0), "mixed": pytest.approx(400.0)}
    (first,) = savings(by_point([*scratch, a_run("new", 0, 7.0, trunk="t")]))
    assert first.beyond == "fewer"


def test_a_learning_rate_is_bracketed_or_tried_further_out():
    inside = Bracket.of({4e-3: 3.1, 1e-3: 3.2, 2e-3: 3.0})
    assert inside.interior and inside.best == 2e-3
    edge = Bracket.of({1e-3: 3.2, 2e-3: 3.1, 4e-3: 3.0})
    assert not edge.interior and "AT THE EDGE" in edge.describe("arm")
    assert next_rate(edge.rates, edge.best) == pytest.approx(8e-3) and next_rate(edge.rates, 1e-3) == pytest.approx(
        5e-4
    )
    assert Bracket.of({1e-3: 3.0, 2e-3: 2.9, 4e-3: float("nan")}).interior


def test_the_page_says_whose_flops_hold_the_trunks():
    made = [dataclasses.replace(run, row={**run.row, "loss": 5.0}) for run in runs(0.1)]
    result = {
        **judge(made, CONTRAST, smoke=True).as_json(),
        "a_a_null": None,
        "cost_of_a_verdict": {"seeds": None},
        "rates": {},
        "runs": len(made),
        "flops": 60.0,
        "flops_of_rates": 0.0,
    }
    page = study_page(result, by_point(made), set())
    assert "with their trunk's" not in page and "| old | A | 1,000 | - | 10 | 3 | law |" in page
    assert r"old & A & 1,000 & - & 10 & 3 & law &" in as_latex([runs_table(by_point(made), set())])
    cooled = [
        dataclasses.replace(run, row={**run.row, "flops": 110.0}) if run.row["arm"] == "new" else run for run in made
    ]
    assert "The FLOPs of new are with their trunk's" in study_page(result, by_point(cooled), set())
