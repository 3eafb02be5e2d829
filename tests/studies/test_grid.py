"""A declared grid becomes runs whose tokens, cooldowns and starts are what was said, each after what it uses."""

import dataclasses
import json

import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.flops import flops_per_token
from cptjax.models.ladder import SMALL, cross_lingual
from cptjax.models.model import parameter_counts
from cptjax.reporting.folder import RunFolder
from cptjax.studies.arms import Arm, Contrast
from cptjax.studies.cost import costs, describe_costs, total
from cptjax.studies.declaration import declare, describe_pilot
from cptjax.studies.grid import Grid
from cptjax.studies.grid_steps import grid_steps
from cptjax.studies.power import seeds_needed
from cptjax.studies.step import Step, check_steps
from cptjax.training.members import read_members

RATES = [1e-3, 2e-3, 4e-3]
TRUNK = Arm("english", {"english": 1.0}, "english", [8192], "scratch")
SCRATCH = Arm("scratch", {"chinese": 1.0}, "chinese", [4096, 8192], RATES)
CONTINUED = Arm("continued", {"chinese": 1.0}, "chinese", [4096, 8192], RATES, start="english")
REPLAY = Arm("replay", {"chinese": 0.75, "english": 0.25}, "chinese", [8192], "continued", start="english", sizes=["B"])
GRID = Grid(
    sizes=["A", "B", "C"],
    sources={"english": "e.jsonl", "chinese": "c.jsonl"},
    arms=[TRUNK, SCRATCH, CONTINUED, REPLAY],
    seeds=3,
    contrast=Contrast("continued", "scratch", "C", 8192, 0.02),
    tokenizer="tokenizer",
    rows_dir="rows",
    rates_at=["A", "B"],
    batch_tokens=1024,
    speed={"A": 1000, "B": 500, "C": 250},
)


def members_of(steps, name):
    return next(step for step in steps if step.name == name).settings["RUNS"]


@pytest.mark.parametrize("size", SMALL)
def test_the_small_rungs_have_the_sizes_that_the_studies_are_declared_at(size):
    counts = parameter_counts(cross_lingual(size))
    assert counts.non_embedding == {"A": 55_536, "B": 141_760, "C": 443_232, "E": 1_512_160}[size]
    assert counts.total - counts.non_embedding == 4096 * cross_lingual(size).hidden
    if size in "AE":  # measured with the corpora, before there was this code
        per_token = flops_per_token(cross_lingual(size), 256).training
        assert per_token / (6 * counts.non_embedding) == pytest.approx({"A": 5.0, "E": 1.57}[size], abs=0.02)


def test_every_point_is_a_run_of_its_own_from_the_trunk_of_its_own_seed():
    steps = grid_steps(GRID)
    check_steps(steps)  # each step's folders are named by steps before it
    assert len(GRID.points()) == 3 * (3 * 1 + 3 * 2 + 3 * 2 + 1)
    runs = members_of(steps, "runs_B_1_rewarm")
    read_members(runs)
    found = {run["name"]: run for run in runs}
    run = found["continued_after_8192_4096_seed2"]
    assert run["checkpoint"] == "{runs_B_0_rewarm}/english_8192_seed2" and run["verb"] == "initialize"
    assert run["learning_rate"] == "{rates_continued_B}" and "rate_factor" not in run
    # Replay comes on top of the target tokens, which stay what they are.
    assert found["replay_after_8192_8192_seed0"]["tokens"] == 11 * 1024  # 8192 / 0.75, in whole batches
    assert {run["tokens"] for name, run in found.items() if name.startswith("continued")} == {4096, 8192}
    assert {run["seed"] for run in runs}.isdisjoint({run["weights_seed"] for run in runs})


def test_learning_rates_are_tried_at_two_sizes_and_carried_to_the_others_by_the_rule():
    steps = grid_steps(dataclasses.replace(GRID, rate_exponent=0.5))
    tried = [step.name for step in steps if step.name.startswith("rates")]
    assert tried == ["rates_scratch_A", "rates_scratch_B", "rates_continued_A", "rates_continued_B"]
    (run,) = members_of(steps, "rates_continued_A")
    assert run["checkpoint"] == "{runs_A_0_rewarm}/english_8192_seed0" and run["tokens"] == 4096
    run = members_of(steps, "runs_C_0_rewarm")[0]
    assert run["learning_rate"] == "{rates_scratch_B}"
    assert run["rate_factor"] == pytest.approx((443_232 / 141_760) ** -0.5)


def test_an_arm_may_have_a_final_rate_of_its_own_and_so_a_step():
    steps = grid_steps(
        dataclasses.replace(GRID, arms=[dataclasses.replace(TRUNK, final_rate="peak/10"), SCRATCH, CONTINUED])
    )
    check_steps(steps)
    rates = {step.name: step.settings.get("FINAL_LEARNING_RATE") for step in steps}
    assert rates["runs_A_0_rewarm_to_peak_10"] == "peak/10" and rates["runs_A_0_rewarm"] == "peak/20"
    names = [run["name"] for run in members_of(steps, "runs_A_0_rewarm_to_peak_10")]
    assert names == [f"english_8192_seed{seed}" for seed in range(3)]
    assert members_of(steps, "runs_A_1_rewarm")[0]["checkpoint"].startswith("{runs_A_0_rewarm_to_peak_10}/")


def test_a_plateau_is_one_run_whose_points_get_their_own_cooldowns():
    trunk = dataclasses.replace(TRUNK, tokens=[4096, 8192], schedule="constant", plateau=True)
    cooled = Arm("cooled", {"english": 1.0}, "english", ["25%"], "inherit", "english", [4096, 8192], True, "anneal")
    grid = dataclasses.replace(GRID, arms=[trunk, SCRATCH, CONTINUED, cooled])
    steps = grid_steps(grid)
    trunks = [run for run in members_of(steps, "runs_A_0_constant")]
    assert len(trunks) == 3 and trunks[0]["save_at"] == [4096, 8192] and trunks[0]["tokens"] == 8192
    runs = [run for run in members_of(steps, "runs_A_1_anneal") if run["name"].endswith("seed0")]
    assert [(run["checkpoint_tokens"], run["tokens"]) for run in runs] == [(4096, 1024), (8192, 2048)]
    assert all(run["verb"] == "branch" and run["learning_rate"] == "inherit" for run in runs)
    # What is compared is annealed: a trunk's plateau can be no side of the contrast.
    with pytest.raises(ConfigurationError, match="no annealed point"):
        dataclasses.replace(grid, contrast=Contrast("cooled", "english", "A", 4096, 0.02))


def test_a_blend_may_change_and_a_target_lie_outside_of_what_is_read():
    other = {"english": "e", "chinese": "c", "law": "l"}
    switched = dataclasses.replace(
        CONTINUED, then={"law": 1.0}, switch=0.2, target="law", moments=True, schedule="reuse"
    )
    grid = dataclasses.replace(GRID, sources=other, arms=[TRUNK, dataclasses.replace(SCRATCH, target="law"), switched])
    steps = grid_steps(grid)
    run = members_of(steps, "runs_A_1_reuse")[0]
    assert run["then"] == {"law": 1.0} and run["tokens"] == 4096 and run["verb"] == "branch"
    point = next(each for each in steps[-1].settings["POINTS"] if each["arm"] == "scratch")
    assert point["target_share"] == 0 and point["replay"] == 0 and point["tables"] == {"law": "scratch"}
    mixed = dataclasses.replace(REPLAY, counts="all", table={"chinese": "both", "english": "other"})
    assert mixed.replay == 0 and grid_steps(dataclasses.replace(GRID, arms=[TRUNK, SCRATCH, CONTINUED, mixed]))[
        -1
    ].settings["POINTS"][-1]["tables"] == {"chinese": "both", "english": "other"}


def test_a_contrast_of_equal_compute_names_the_point_of_each_side():
    trunk = dataclasses.replace(TRUNK, tokens=[4096, 8192], schedule="constant", plateau=True)
    continued = dataclasses.replace(CONTINUED, prior=[4096, 8192])
    arms = [trunk, SCRATCH, continued]
    with pytest.raises(ConfigurationError, match="several of that arm's"):
        dataclasses.replace(GRID, arms=arms)
    contrast = Contrast("continued", "scratch", "C", 4096, 0.02, prior=4096, worse_tokens=8192)
    assert dataclasses.replace(GRID, arms=arms, contrast=contrast).contrast.picks("scratch", None, 8192)
    assert not contrast.picks("continued", 8192, 4096)


def test_the_cost_counts_the_search_the_trunk_and_every_seed():
    rows = {(row.what, row.size): row for row in costs(GRID)}
    a, per_token = rows["scratch", "A"], flops_per_token(cross_lingual("A"), 256).training
    assert (a.runs, a.tokens) == (6, 3 * (4096 + 8192))
    assert a.flops == pytest.approx(per_token * a.tokens) and a.seconds == pytest.approx(a.tokens / 1000)
    assert a.six_nd == 6 * parameter_counts(cross_lingual("A")).total * a.tokens
    assert rows["rates of scratch", "B"].tokens == 3 * 4096 and ("rates of scratch", "C") not in rows
    assert rows["replay", "B"].tokens == 3 * 11 * 1024 and rows["english", "C"].tokens == 3 * 8192
    assert total(costs(GRID)).tokens == sum(row.tokens for row in rows.values())
    told = describe_costs(dataclasses.replace(GRID, speed=None))
    assert "no speed is known" in told[-1] and "in all" in told[-3]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"arms": [SCRATCH]}, "no arm 'continued'"),
        ({"arms": [dataclasses.replace(TRUNK, start="continued"), SCRATCH, CONTINUED]}, "in a circle"),
        ({"rates_at": ["A", "D"]}, "the small rungs are A, B, C, E"),
        ({"contrast": Contrast("continued", "scratch", "C", 5000, 0.02)}, "no annealed point"),
        ({"contrast": Contrast("continued", "english", "C", 8192, 0.02)}, "different targets"),
        ({"sources": {"english": "e"}}, "reads 'chinese'"),
        ({"arms": [TRUNK, SCRATCH, dataclasses.replace(CONTINUED, prior=[5])]}, "starts from 'english' after 5 tokens"),
        ({"seeds": 0}, "Grid.seeds"),
        ({"seeds": 2}, "seeds = 2, and a study has three"),
        ({"rates_at": ["A"]}, "rates are tried at two"),
        ({"allow": ["seeds"]}, "there are 'few_seeds' and 'one_rates_size'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(change, said):
    with pytest.raises(ConfigurationError, match=said):
        dataclasses.replace(GRID, **change)


def test_what_is_switched_off_is_named_and_the_report_is_told_of_it():
    assert len(GRID.rules()) == 1 and "any other size takes those of the nearest, the same" in GRID.rules()[0]
    dataclasses.replace(GRID, seeds=1, rates_at=["A"], smoke=True)
    off = dataclasses.replace(GRID, seeds=2, rates_at=["B"], allow=["few_seeds", "one_rates_size"], rate_exponent=0.5)
    assert grid_steps(off)[-1].settings["RULES"] == off.rules()
    assert "times (N / N there) ** -0.5" in off.rules()[0] and off.rules()[1].count("few_seeds") == 1


@pytest.mark.parametrize(
    "change, said",
    [
        ({"learning_rates": [1e-3, 2e-3]}, "three different ones"),
        ({"blend": {"chinese": 0.5}}, "add up to 1"),
        ({"then": {"chinese": 2.0}}, "add up to 1"),
        ({"tokens": ["20%"]}, "starts at random"),
        ({"tokens": [-1]}, "budgets above 0"),
        ({"learning_rates": "inherit"}, "no learning rate to inherit"),
        ({"name": "a__b"}, "a name has"),
        ({"final_rate": "peak/10", "schedule": "constant"}, "what a 'rewarm' falls to"),
        ({"plateau": True, "schedule": "constant"}, "a plateau, whose loss is not annealed"),
    ],
)
def test_an_arm_that_cannot_be_is_refused(change, said):
    with pytest.raises(ConfigurationError, match=said):
        dataclasses.replace(SCRATCH, **change)


def test_what_was_declared_before_the_first_run_stays(tmp_path):
    folder = RunFolder(tmp_path)
    listed = [Step("chosen", "gin/recipes/select_random.gin", {"R": 0.25})]
    declare(GRID, listed, folder)
    first = (tmp_path / "declaration.json").read_text()
    declare(dataclasses.replace(GRID, speed=1e9), listed, folder)  # what a run takes is no part of what is asked
    assert (tmp_path / "declaration.json").read_text() == first
    with pytest.raises(ConfigurationError, match="declared otherwise.*: contrast, seeds changed"):
        declare(
            dataclasses.replace(GRID, seeds=5, contrast=Contrast("continued", "scratch", "C", 8192, 0.01)),
            listed,
            folder,
        )
    with pytest.raises(ConfigurationError, match="declared otherwise.*: steps changed"):
        declare(GRID, [Step("chosen", "gin/recipes/select_random.gin", {"R": 0.5})], folder)

    # Nor is it written anew once something has run: what is declared after a look is no declaration.
    (tmp_path / "steps").mkdir()
    attempt = {"started": "2026-01-01T00:00:00", "seconds": 1.0, "code": 1}
    record = {"name": "chosen", "done": False, "digest": "", "command": [], "settings": "", "attempts": [attempt]}
    (tmp_path / "steps" / "chosen.json").write_text(json.dumps(record))
    declare(GRID, listed, folder)
    (tmp_path / "declaration.json").unlink()
    with pytest.raises(ConfigurationError, match="no declaration.json, and 'chosen' was begun already"):
        declare(GRID, listed, folder)


def test_a_pilot_tells_how_many_seeds_are_needed_and_a_study_that_ran_how_long_it_takes(tmp_path):
    folder = tmp_path / "conclusion"
    folder.mkdir()
    found = {"deviation": 0.02, "documents": 1e-6, "paired": False}
    speeds = {"A": 2000.0, "B": 1000.0, "C": 500.0}
    (folder / "verdict.json").write_text(json.dumps({"difference": found, "tokens_per_second": speeds}))
    grid = dataclasses.replace(GRID, pilot=str(tmp_path), speed=str(tmp_path))
    needed = seeds_needed(0.02, 0.02, 1e-6)
    assert f"0.02 takes {needed} seeds" in describe_pilot(grid)[-1] and needed > 3
    assert total(costs(grid)).seconds == pytest.approx(total(costs(GRID)).seconds / 2)
    with pytest.raises(ConfigurationError, match="no finished study"):
        describe_pilot(dataclasses.replace(GRID, pilot=str(folder / "none")))
