"""Wrong inputs to a run: one screen that names the cause, and nothing left that could be taken for a checkpoint."""

import gzip
import json
import shutil

import pytest
from commands import run_main

from cptjax.reporting.folder import RunFolder

pytestmark = pytest.mark.slow
SCREEN = 25  # lines


def refused(settings, *messages, code=2):
    printed = run_main(*settings, code=code)
    error = printed[printed.index("error:") :]
    assert "Traceback" not in printed and len(error.splitlines()) <= SCREEN
    for message in messages:
        assert message in error, f"{message!r} is not in:\n{error}"


def copied(checkpoint, folder):
    shutil.copytree(checkpoint, folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


def test_a_misspelt_macro(recipe, tmp_path):
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", "TRAIN_TOKENZ=5"], "TRAIN_TOKENZ", "TRAIN_TOKENS")


def test_missing_required_macros_are_listed_together(tmp_path):
    refused(
        ["gin/recipes/reuse.gin", f"OUTPUT_DIR='{tmp_path / 'r'}'"],
        "HF_CHECKPOINT",
        "GENERAL",
        "TARGET",
        "TRAIN_TOKENS",
    )


def test_a_missing_file(recipe, tmp_path):
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", "GENERAL='/no/such/text.jsonl'"], "/no/such/text.jsonl")
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_a_missing_checkpoint_is_never_a_fresh_start(recipe, tmp_path):
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", "HF_CHECKPOINT='/no/such/model'"], "/no/such/model")
    assert not (tmp_path / "r").exists()


def test_a_kernel_for_other_devices(recipe, tmp_path):
    settings = [*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", "ATTENTION='pallas_tpu'"]
    refused(settings, "'pallas_tpu' is for a TPU", "CPUs")


def test_an_empty_corpus(recipe, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", f"TARGET='{tmp_path / 'empty.jsonl'}'"], "empty.jsonl")


def test_a_malformed_line(recipe, tmp_path):
    path = tmp_path / "bad.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(json.dumps({"id": "a", "text": "fine"}) + "\n" + '{"id": "b", "text": \n')
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", f"TARGET='{path}'"], "bad.jsonl.gz", "2")


def test_a_truncated_safetensors_file(recipe, shared_data, tmp_path):
    model = copied(shared_data / "stories260K", tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500_000])
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", f"HF_CHECKPOINT='{model}'"], "model.safetensors", code=1)
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_an_unsupported_architecture(recipe, shared_data, tmp_path):
    model = copied(shared_data / "stories260K", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", f"HF_CHECKPOINT='{model}'"], "mamba", "llama", "qwen2")


def test_a_flipped_bit_in_a_checkpoint(finished_run, recipe, tmp_path):
    whole, _ = finished_run
    run = tmp_path / "flipped"
    shutil.copytree(whole, run)
    (run / "finished.json").unlink()
    newest = max((run / "checkpoints").iterdir())
    victim = max((file for file in (newest / "state").rglob("*") if file.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.write_bytes(bytes(content))
    refused([*recipe, f"OUTPUT_DIR='{run}'"], victim.name, newest.name.lstrip("0"), "intact", code=1)
    settings = ["gin/jobs/export.gin", f"CHECKPOINT='{run}'", f"OUTPUT_DIR='{tmp_path / 'out'}'"]
    refused(settings, victim.name, code=1)
    assert not (tmp_path / "out").exists()


def test_a_half_written_checkpoint_is_passed_over(finished_run, recipe, tmp_path):
    whole, _ = finished_run
    run = tmp_path / "half"
    shutil.copytree(whole, run)
    (run / "finished.json").unlink()
    newest = max((run / "checkpoints").iterdir())
    (newest / "digests.json").unlink()
    printed = run_main(*recipe, f"OUTPUT_DIR='{run}'")
    assert f"ignoring {newest}" in printed and "resume: from step 36" in printed


def test_a_changed_model_file_in_a_run_is_named(finished_run, tmp_path):
    whole, _ = finished_run
    run = tmp_path / "changed"
    shutil.copytree(whole, run)
    config = json.loads((run / "model" / "config.json").read_text())
    (run / "model" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.01}))
    settings = ["gin/jobs/export.gin", f"CHECKPOINT='{run}'", f"OUTPUT_DIR='{tmp_path / 'out'}'"]
    refused(settings, "config.json", "it was changed", code=1)


def test_a_folder_that_another_process_trains_in(recipe, finished_run, tmp_path):
    whole, _ = finished_run
    run = tmp_path / "held"
    shutil.copytree(whole, run)
    (run / "finished.json").unlink()
    lock = RunFolder(run).hold()
    refused([*recipe, f"OUTPUT_DIR='{run}'"], "in use")
    lock.close()


@pytest.mark.parametrize("value", ["peak*-1", "peak/-2", "peak*1e400"])
def test_a_final_learning_rate_that_cannot_be(recipe, tmp_path, value):
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", f"FINAL_LEARNING_RATE='{value}'"], value)


def test_a_sequence_longer_than_the_model_was_made_for(recipe, tmp_path):
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", "SEQUENCE_LENGTH=1024", "BATCH_TOKENS=8192"], "1024", "512")


def test_a_batch_that_does_not_divide(recipe, tmp_path):
    refused([*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", "BATCH_TOKENS=500"], "BATCH_TOKENS = 500", "BATCH_TOKENS = 512")


def test_a_source_read_too_often(recipe, tmp_path):
    refused(
        [*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", "TRAIN_TOKENS=2e6", "MAX_EPOCHS=2"],
        "MAX_EPOCHS is 2",
        "TRAIN_TOKENS",
    )


def test_a_folder_that_is_not_a_run(recipe, tmp_path):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    refused([*recipe, f"OUTPUT_DIR='{tmp_path}'"], "thesis.txt")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.model", "model.safetensors"])
def test_a_checkpoint_with_a_file_missing(recipe, shared_data, tmp_path, missing):
    model = copied(shared_data / "stories260K", tmp_path / "model")
    (model / missing).unlink()
    printed = run_main(*recipe, f"OUTPUT_DIR='{tmp_path / 'r'}'", f"HF_CHECKPOINT='{model}'", code=2)
    assert "Traceback" not in printed and str(model) in printed


# ---- damaged checkpoints: each names the file, and the tensor where there is one


def truncated(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return "model.safetensors is truncated: tensor 'model.", "Download or copy it again"


def without_a_shard(model):
    (model / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return "index.json names the shard 'model-00002-of-00002.safetensors'", "'model.norm.weight' should be in it"


def of_another_shape(model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"intermediate_size": 176}))
    return "model.safetensors: tensor 'model.layers.0.mlp.", "has shape", "config.json makes it (", "176"


def with_nan(model):
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-4:] = b"\x00\x00\xc0\x7f"  # float32 NaN
    (model / "model.safetensors").write_bytes(weights)
    return "model.safetensors: tensor 'model.", "holds values that are not finite (NaN or inf)"


def of_pickles(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return "only as pickles (pytorch_model.bin)", "safe_serialization=True"


def of_something_else(model):
    for file in model.iterdir():
        file.unlink()
    (model / "photo.jpg").write_bytes(b"")
    return "is not a Hugging Face checkpoint: it holds no config.json"


@pytest.mark.parametrize(
    "damage, code",
    [
        (truncated, 1),
        (without_a_shard, 1),
        (of_another_shape, 1),
        (with_nan, 1),
        (of_pickles, 2),
        (of_something_else, 2),
    ],
)
def test_a_damaged_checkpoint_is_named_with_its_tensor_and_nothing_stands(shared_data, tmp_path, damage, code):
    model = copied(shared_data / "stories260K", tmp_path / "model")
    messages = damage(model)
    settings = ["gin/jobs/convert.gin", f"HF_CHECKPOINT='{model}'", f"OUTPUT_DIR='{tmp_path / 'r'}'"]
    refused(settings, str(model), *([messages] if isinstance(messages, str) else messages), code=code)
    assert not list((tmp_path / "r").glob("checkpoints/*")) and not (tmp_path / "r" / "finished.json").exists()
