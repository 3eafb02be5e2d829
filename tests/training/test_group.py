"""A run of a group is the run that the job `train` makes; trunks are saved on their way, and branches go on past what they read."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath
from test_step import SMALL

from cptjax.checkpoints.source import open_checkpoint
from cptjax.data.blend import Stage
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.jobs.find_rates import find_rates
from cptjax.jobs.train import train
from cptjax.jobs.train_group import train_group
from cptjax.training.group import batches_of_runs
from cptjax.training.guard import Guard
from cptjax.training.members import read_members
from cptjax.training.run import Run
from cptjax.training.schedule import Phase, Schedule
from cptjax.training.start import Random

TRUNK = {"name": "trunk", "blend": {"words": 1.0}, "tokens": 3072, "learning_rate": 4e-3, "seed": 7, "weights_seed": 1}
OTHER = {**TRUNK, "name": "other", "seed": 8, "weights_seed": 2, "tokens": 1024}
RUNS = [{**TRUNK, "save_at": [1024]}, OTHER]
BRANCH = {
    "name": "branch",
    "blend": {"words": 1.0},
    "tokens": 1024,
    "learning_rate": "inherit",
    "seed": 7,
    "verb": "branch",
    "checkpoint_tokens": 1024,
}


@pytest.fixture(scope="module")
def run(shared_data, tmp_path_factory):
    """A run of 512 tokens a step, in a folder of its own."""
    folder = tmp_path_factory.mktemp("group")
    words = "the cat sat on a mat and saw one small red bird that sang to him all day".split()
    generator = np.random.default_rng(0)
    lines = [{"id": str(n), "source": "t", "text": " ".join(generator.choice(words, 60))} for n in range(120)]
    (folder / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Run(
        output_dir=str(folder / "runs"),
        start=Random(dataclasses.replace(SMALL, vocabulary=512), "llama", str(shared_data / "stories260K")),
        sources={"words": str(folder / "words.jsonl")},
        stages=(),
        schedule=Schedule(1.0, "peak", (Phase("hold"),)),
        tokens=1,
        batch_tokens=512,
        sequence_length=64,
        validation_fraction=0.1,
        validation_tokens=1024,
        rows_dir=str(folder / "rows"),
    )


def logged(folder):
    return [json.loads(line) for line in (epath.Path(folder) / "metrics.jsonl").read_text().splitlines()]


def losses(lines):
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_a_group_trains_the_runs_that_each_would_be_alone(run, capsys):
    train_group(run, RUNS)
    alone = dataclasses.replace(
        run,
        output_dir=run.output_dir + "_alone",
        start=dataclasses.replace(run.start, seed=2),
        stages=(Stage("other", {"words": 1.0}),),
        schedule=dataclasses.replace(run.schedule, peak=4e-3),
        tokens=1024,
        seed=8,
    )
    train(alone)
    mine, theirs = logged(f"{run.output_dir}/other"), logged(alone.output_dir)
    assert losses(mine) == pytest.approx(losses(theirs), rel=1e-5) and len(losses(mine)) == 2
    for name in ("validation/words/loss", "validation/words/bits_per_byte"):
        assert mine[-1][name] == pytest.approx(theirs[-1][name], rel=1e-5)
    documents = json.loads(epath.Path(f"{run.output_dir}/other/documents.json").read_text())["words"]
    assert sum(documents["nats"]) / sum(documents["tokens"]) == pytest.approx(mine[-1]["validation/words/loss"])

    # A branch off the trunk's way: past the rows that the trunk had read by then, at the rate that it was at.
    branches = dataclasses.replace(run, output_dir=run.output_dir + "_branches")
    train_group(branches, [{**BRANCH, "checkpoint": f"{run.output_dir}/trunk"}])
    lineage = open_checkpoint(f"{branches.output_dir}/branch").lineage
    assert [each.verb for each in lineage.runs] == ["random", "branch"]
    assert lineage.runs[1].learning_rate.peak == pytest.approx(4e-3)
    assert lineage.runs[0].exposures["words"].rows == 8 * 2 and lineage.tokens == pytest.approx(2048, rel=0.05)

    # Finished, it does nothing; a run that is missing begins again, the other stays.
    capsys.readouterr()
    train_group(run, RUNS)
    assert "is finished (2 runs); nothing to do" in capsys.readouterr().out
    folder = epath.Path(run.output_dir)
    (folder / "finished.json").unlink()
    (folder / "other" / "finished.json").unlink()
    before = (folder / "trunk" / "finished.json").read_text()
    train_group(run, RUNS)
    assert (folder / "trunk" / "finished.json").read_text() == before
    assert losses(logged(folder / "other")) == pytest.approx(losses(theirs), rel=1e-5)

    # Of other settings it does not pass for a run of these; nor does it replace a run of somebody else's.
    (folder / "finished.json").unlink()
    with pytest.raises(
        ConfigurationError, match="other' holds another run.*(?s:.*)learning_rate.*0.004 there, 0.002 now"
    ):
        train_group(run, [RUNS[0], {**OTHER, "learning_rate": 2e-3}])
    (epath.Path(alone.output_dir) / "finished.json").unlink()
    epath.Path(alone.output_dir).rename(folder / "alone")
    with pytest.raises(ConfigurationError, match="alone' holds a run that is not of a group"):
        train_group(run, [{**OTHER, "name": "alone"}])
    assert (folder / "alone" / "checkpoints").exists()


@pytest.mark.parametrize(
    "mesh, width, said",
    [
        (None, 12, "SIDE_BY_SIDE = 12, which the 8 devices do not divide: name a multiple of 8, or 1"),
        ({"fsdp": 4, "tensor": 2}, 8, "MESH cuts them over tensor .2."),
    ],
)
def test_runs_that_cannot_be_side_by_side_are_refused(run, tmp_path, mesh, width, said):
    run = dataclasses.replace(run, output_dir=str(tmp_path / "group"), mesh=mesh)
    with pytest.raises(ConfigurationError, match=said):
        train_group(run, [OTHER], side_by_side=width)


@pytest.mark.slow
def test_runs_that_devices_share_out_are_the_runs_one_by_one(run, tmp_path):
    many = [{**TRUNK, "name": f"run{n}", "tokens": 1024, "seed": n, "learning_rate": 1e-3 * (1 + n)} for n in range(9)]
    many = [{**each, "save_at": [512]} for each in many]
    together = dataclasses.replace(run, output_dir=str(tmp_path / "together"))
    train_group(together, many, side_by_side=16)  # 8 on 8 devices, and one more
    one_by_one = dataclasses.replace(run, output_dir=str(tmp_path / "one_by_one"))
    train_group(one_by_one, [many[2], many[8]], side_by_side=1)
    for name in ("run2", "run8"):
        mine, theirs = (logged(f"{each.output_dir}/{name}") for each in (together, one_by_one))
        assert losses(mine) == pytest.approx(losses(theirs), rel=1e-5) and len(losses(mine)) == 2
        assert mine[-1]["validation/words/loss"] == pytest.approx(theirs[-1]["validation/words/loss"], rel=1e-5)
    # What was saved on the way is that run's: weights, and moments, by which a branch goes on.
    branches = dataclasses.replace(run, output_dir=str(tmp_path / "branches"))
    on_the_way = {**BRANCH, "seed": 2, "checkpoint_tokens": 512}
    froms = {"mine": together.output_dir, "theirs": one_by_one.output_dir}
    train_group(branches, [{**on_the_way, "name": name, "checkpoint": f"{of}/run2"} for name, of in froms.items()])
    mine, theirs = (losses(logged(f"{branches.output_dir}/{name}")) for name in froms)
    assert mine == pytest.approx(theirs, rel=1e-5) and len(mine) == 2


@pytest.mark.parametrize(
    "widest, devices, lengths",
    [(1, 1, [1] * 7), (3, 1, [3, 2, 2]), (4, 2, [4, 1, 2]), (3, 2, [2, 2, 1, 2]), (1, 8, [1] * 7)],
)
def test_runs_are_put_together_by_length_and_as_devices_divide_them(widest, devices, lengths):
    def of_length(steps):
        update = SimpleNamespace(stage_begins=())
        return SimpleNamespace(plan=SimpleNamespace(steps=steps, update=lambda: update), save_at=())

    runs = [of_length(steps) for steps in (5, 5, 5, 5, 5, 9, 9)]
    found = batches_of_runs(runs, widest, devices)
    assert [len(each) for each in found] == lengths and [one for each in found for one in each] == runs
    assert all(len({one.plan.steps for one in each}) == 1 for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("side_by_side", [1, 8])
def test_a_run_that_diverges_ends_a_group_but_not_the_search_for_a_learning_rate(run, side_by_side, tmp_path):
    """One by one, each cut over all 8 devices; and side by side, each on a device of its own."""
    rates = [1e-3, 4e-3, 1e38] if side_by_side == 1 else [1e-5, 1e-4, 3e-4, 5e-4, 1e-3, 2e-3, 4e-3, 1e38]
    run = dataclasses.replace(run, output_dir=str(tmp_path / "rates"), guard=Guard(patience=2))
    member = {name: value for name, value in OTHER.items() if name != "learning_rate"} | {"tokens": 2560}
    find_rates(run, [member], rates, "words", widen=0, side_by_side=side_by_side)
    found = json.loads((tmp_path / "rates" / "rates.json").read_text())
    assert found["best"] == 4e-3 and found["bracketed"] and found["losses"][-1] is None
    lines = logged(tmp_path / "rates" / "other_1e+38")
    assert [line["refused_in_a_row"] for line in lines] == [0, 1, 2, 3, 4] and lines[1]["skipped"] == 1
    group = dataclasses.replace(run, output_dir=str(tmp_path / "group"))
    with pytest.raises(CptjaxError, match="other': 2 steps one after another, up to step 3, .*skipped"):
        train_group(group, [{**member, "learning_rate": 1e38}])
    assert not (tmp_path / "group" / "other" / "finished.json").exists()


@pytest.mark.parametrize(
    "runs, said",
    [
        ([], "no runs"),
        ([TRUNK, TRUNK], "two of one name"),
        ([{**TRUNK, "token": 5}], "token unknown"),
        ([{"name": "a"}], "blend, learning_rate, tokens missing"),
        ([{**TRUNK, "verb": "branch"}], "all but 'random' name a checkpoint"),
    ],
)
def test_runs_that_cannot_be_are_refused(runs, said):
    with pytest.raises(ConfigurationError, match=said):
        read_members(runs)
