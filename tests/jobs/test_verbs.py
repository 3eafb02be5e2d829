"""The four verbs, each as its recipe: what a run takes from where it starts, and what it does not."""

import json

import numpy as np
import pytest
from commands import logged, run_main

from cptjax.checkpoints.source import open_checkpoint
from cptjax.checkpoints.store import CheckpointStore

pytestmark = pytest.mark.slow
SIZES = ["SEQUENCE_LENGTH=64", "BATCH_TOKENS=512", "SAVE_EVERY=2048"]


def texts(recipe):
    return [s for s in recipe if s.split("=")[0] in ("GENERAL", "TARGET", "ROWS_DIR")]


def moments(run, step):
    """Every array of a checkpoint, as saved."""
    import jax

    store = CheckpointStore(run / "checkpoints")
    arrays = json.loads((store.path_of(step) / "metadata.json").read_text())["arrays"]
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {n: jax.ShapeDtypeStruct(a["shape"], a["dtype"], sharding=one) for n, a in arrays.items()}
    return {name: np.asarray(array) for name, array in store._restore(step, wanted, True, "").items()}


@pytest.fixture(scope="module")
def pretrained(recipe, shared_data, tmp_path_factory):
    run = tmp_path_factory.mktemp("verbs") / "base"
    given = [s for s in texts(recipe) if not s.startswith("TARGET")]
    tokenizer = f"TOKENIZER='{shared_data / 'stories260K'}'"
    base = ["gin/recipes/pretrain.gin", "MODEL='llama_260k'", tokenizer, *given, *SIZES]
    printed = run_main(*base, "TRAIN_TOKENS=10240", f"OUTPUT_DIR='{run}'")
    assert "random: from step 0" in printed
    return run


def test_random_weights_learn(pretrained):
    losses = [line["loss"] for line in logged(pretrained) if "loss" in line]
    assert losses[0] == pytest.approx(np.log(512), rel=0.02)  # nothing is known at first
    assert losses[-1] < losses[0] - 0.3
    lineage = open_checkpoint(pretrained).lineage
    assert lineage.origin.kind == "random" and lineage.runs[0].verb == "random"


def test_branch_carries_moments_and_exposures_and_inherits_the_learning_rate(pretrained, recipe, tmp_path):
    trunk = open_checkpoint(pretrained)
    given = ["gin/recipes/branch.gin", f"CHECKPOINT='{pretrained}'", *texts(recipe), *SIZES, "SAVE_EVERY=512"]
    runs = {}
    for data in ("anew", "continue"):
        runs[data] = tmp_path / data
        run_main(*given, "TRAIN_TOKENS=1024", f"DATA='{data}'", f"OUTPUT_DIR='{runs[data]}'", "REPLAY=0.5")
    first = next(line for line in logged(runs["anew"]) if "loss" in line)
    assert first["learning_rate"] == pytest.approx(trunk.lineage.final_learning_rate())
    before, after = moments(pretrained, trunk.step), moments(runs["anew"], 1)
    (counter,) = [name for name in before if name.endswith(".count")]
    assert after[counter] == before[counter] + 1  # Adam's own count goes on
    assert after["step"] == 1  # the run's does not
    second = [name for name in before if ".nu." in name and name.endswith("query.kernel")][0]
    assert before[second].min() > 0
    assert np.all(after[second] >= 0.95 * before[second] * (1 - 1e-6))  # v <- 0.95 v + 0.05 g^2

    lineage = open_checkpoint(runs["anew"]).lineage
    assert [record.verb for record in lineage.runs] == ["random", "branch"]
    assert lineage.exposures()["general"].rows == trunk.lineage.exposures()["general"].rows + 8
    plans = {data: open_checkpoint(run).metadata["plan"]["data"] for data, run in runs.items()}
    assert plans["anew"]["start_rows"] == {}
    assert plans["continue"]["start_rows"] == {"general": trunk.lineage.exposures()["general"].rows}
    read = {"general": trunk.lineage.exposures()["general"].epochs}
    assert [plans[data]["epochs_before"] for data in plans] == [read, read]
    refused = run_main(
        *given, "TRAIN_TOKENS=1024", f"OUTPUT_DIR='{tmp_path / 'no'}'", "REPLAY=1.0", "MAX_EPOCHS=0.01", code=2
    )
    assert "epochs of it were read before this run" in refused and not (tmp_path / "no" / "checkpoints").exists()


def test_initialize_takes_weights_alone(pretrained, recipe, tmp_path):
    run = tmp_path / "run"
    given = ["gin/recipes/rewarm.gin", f"HF_CHECKPOINT='{pretrained}'", *texts(recipe), *SIZES, "SAVE_EVERY=512"]
    run_main(*given, "TRAIN_TOKENS=1024", "PEAK_LEARNING_RATE=1e-3", "WARMUP='1 step'", f"OUTPUT_DIR='{run}'")
    assert [line["learning_rate"] for line in logged(run) if "loss" in line] == pytest.approx([0.0, 1e-3])
    saved = moments(run, 1)
    (counter,) = [name for name in saved if name.endswith(".count")]
    assert saved[counter] == 1
    before = moments(pretrained, open_checkpoint(pretrained).step)
    for name in before:
        if name.startswith("params."):  # the first step's learning rate is 0
            assert np.array_equal(saved[name], before[name])
    lineage = open_checkpoint(run).lineage
    assert [record.verb for record in lineage.runs] == ["random", "initialize"]
    assert set(lineage.exposures()) == {"general", "target"}  # counted anew
    assert lineage.exposures()["target"].rows + lineage.exposures()["general"].rows == 16


def test_a_branch_from_weights_alone_is_refused(recipe, shared_data, tmp_path):
    given = ["gin/recipes/branch.gin", f"CHECKPOINT='{shared_data / 'stories260K'}'", *texts(recipe), *SIZES]
    printed = run_main(*given, "TRAIN_TOKENS=1024", f"OUTPUT_DIR='{tmp_path / 'r'}'", code=2)
    assert "no optimizer moments" in printed and "Initialize" in printed


def test_another_model_in_a_runs_folder_is_refused(pretrained, recipe, shared_data):
    given = [s for s in texts(recipe) if not s.startswith("TARGET")] + [f"TOKENIZER='{shared_data / 'stories260K'}'"]
    settings = ["gin/recipes/pretrain.gin", "MODEL='llama_1m'", *given, *SIZES, "TRAIN_TOKENS=10240"]
    printed = run_main(*settings, f"OUTPUT_DIR='{pretrained}'", code=2)
    assert "start.model.vocabulary: 512 there, 2048 now" in printed


def test_a_tokenizer_given_as_a_file_of_any_name_is_carried_and_resumed(recipe, shared_data, tmp_path):
    (tmp_path / "mine.model").write_bytes((shared_data / "stories260K" / "tokenizer.model").read_bytes())
    given = [s for s in texts(recipe) if not s.startswith("TARGET")] + [f"TOKENIZER='{tmp_path / 'mine.model'}'"]
    run = tmp_path / "run"
    settings = [
        "gin/recipes/pretrain.gin",
        "MODEL='llama_260k'",
        *given,
        *SIZES,
        "TRAIN_TOKENS=1024",
        f"OUTPUT_DIR='{run}'",
    ]
    run_main(*settings, "SEED=0e0")  # a whole number, however written
    (run / "finished.json").unlink()
    assert "resume: from step 2" in run_main(*settings)


def test_a_model_where_none_is_drawn_is_refused(recipe, tmp_path):
    printed = run_main(*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", "MODEL='llama_1m'", code=2)
    assert "MODEL = 'llama_1m' is set" in printed


def test_continuing_in_another_order_than_the_trunks_is_refused(pretrained, recipe, tmp_path):
    given = ["gin/recipes/branch.gin", f"CHECKPOINT='{pretrained}'", *texts(recipe), *SIZES, "DATA='continue'"]
    printed = run_main(*given, "TRAIN_TOKENS=1024", "SEED=7", f"OUTPUT_DIR='{tmp_path / 'r'}'", code=2)
    assert "whose seed is 0, not 7" in printed


def test_a_model_that_is_not_there_is_named_with_those_that_are(recipe, shared_data, tmp_path):
    given = [s for s in texts(recipe) if not s.startswith("TARGET")] + [f"TOKENIZER='{shared_data / 'stories260K'}'"]
    settings = [
        "gin/recipes/pretrain.gin",
        "MODEL='llama_260'",
        *given,
        "TRAIN_TOKENS=1024",
        f"OUTPUT_DIR='{tmp_path / 'r'}'",
    ]
    printed = run_main(*settings, code=2)
    assert "Did you mean 'llama_260k'?" in printed and "llama_1m" in printed
