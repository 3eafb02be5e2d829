"""A run of a group is the run that the job `train` makes; trunks are saved on their way, and branches go on past what they read."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath
from test_step import SMALL

from cptjax.checkpoints.source import open_checkpoint
from cptjax.data.blend import Stage
from cptjax.errors import ConfigurationError
from cptjax.jobs.train import train
from cptjax.jobs.train_group import train_group
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
