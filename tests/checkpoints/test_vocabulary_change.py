"""A checkpoint with another vocabulary: its rows against numpy by hand, all else bit for bit, and what is refused."""

import dataclasses
import json
import shutil
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.safetensors import SafetensorsFile
from cptjax.checkpoints.source import open_checkpoint, write_model_folder
from cptjax.checkpoints.store import CheckpointStore
from cptjax.data.token_contents import vocabulary_of
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizer_folder import tokenizer_files
from cptjax.data.tokenizer_training import TokenizerSettings, _train
from cptjax.data.vocabulary_mapping import map_vocabulary
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.sequences import read_sequences
from cptjax.jobs.change_vocabulary import change_vocabulary
from cptjax.models.config import DecoderConfig
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.opt import OPT
from cptjax.models.model import abstract_weights, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

TEXT = [*Path(textwrap.__file__).read_text(encoding="utf-8").splitlines(keepends=True), "Die Würde des Menschen.\n"]
OLD_SIZE, ROWS, NEW_SIZE = 400, 408, 420  # a checkpoint's table with eight rows that are no token's
TINY = DecoderConfig(vocabulary=ROWS, hidden=16, layers=2, heads=4, kv_heads=2, head_dim=4, mlp=24)
MODELS = {
    "untied": (LLAMA, TINY),
    "tied": (LLAMA, dataclasses.replace(TINY, tied_embeddings=True)),
    "narrow": (
        OPT,
        OPT.read_config(
            {
                "vocab_size": ROWS,
                "hidden_size": 16,
                "word_embed_proj_dim": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "ffn_dim": 24,
                "max_position_embeddings": 64,
                "do_layer_norm_before": False,
            }
        ),
    ),
}


def one_device():
    return build_mesh({"fsdp": 1}, jax.devices()[:1])


def random_weights(config, seed):
    rng = np.random.default_rng(seed)
    specs = abstract_weights(config)
    return {name: 0.1 * rng.standard_normal(spec.shape).astype(np.float32) for name, spec in specs.items()}


def sentencepiece(folder):
    """As the job train_tokenizer writes it."""
    folder.mkdir()
    for name, content in tokenizer_files(_train(iter(TEXT), TokenizerSettings(OLD_SIZE)), "bpe").items():
        (folder / name).write_bytes(content)
    return folder


def byte_level(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=NEW_SIZE, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    declared = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "bos_token": special[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(declared | {"eos_token": special[1]}))
    (folder / "generation_config.json").write_text('{"eos_token_id": 99}')  # of whatever model it came with
    return folder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    return sentencepiece(root / "sentencepiece"), byte_level(root / "byte_level")


def checkpoint(folder, kind, tokenizer, dtype="float32"):
    family, config = MODELS[kind]
    original = {"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": 0, "tokenizer_class": "LlamaTokenizer"}
    params = random_weights(config, 3)
    export_folder(params, config, family, family.write_config(config) | original, tokenizer, folder, dtype)
    generation = {"bos_token_id": 1, "eos_token_id": 2, "suppress_tokens": [7], "temperature": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return str(folder)


def mapping_of(old, new):
    old, new = open_tokenizer(str(old)), open_tokenizer(str(new))
    return map_vocabulary(vocabulary_of(old), vocabulary_of(new), old.encode_batch)


def by_hand(table, mapping):
    """The rows of "pieces", one after another."""
    rows = []
    for copied, pieces in zip(mapping.copied, mapping.pieces, strict=True):
        if copied >= 0:
            rows.append(table[copied])
        else:
            rows.append(np.mean([table[p].astype(np.float64) for p in pieces], axis=0))
    return np.array(rows).astype(table.dtype)


@pytest.mark.parametrize("kind, dtype", [("untied", "float32"), ("tied", "bfloat16"), ("narrow", "float32")])
def test_rows_are_what_numpy_makes_by_hand_and_all_else_as_it_was(kind, dtype, tokenizers, tmp_path):
    old, new = tokenizers
    base = checkpoint(tmp_path / "base", kind, old, dtype)
    change_vocabulary(base, str(new), str(tmp_path / "changed"), shard_bytes=4_000)
    before, after = open_folder(base), open_folder(tmp_path / "changed")
    mapping, tables = mapping_of(old, new), 0
    assert len(mapping.made) > 20 and set(after.tensors) == set(before.tensors)
    for name, file in before.tensors.items():
        was, is_now = file.read(name), after.tensors[name].read(name)
        if was.shape[0] == ROWS:
            was, tables = by_hand(was, mapping), tables + 1
        assert was.dtype == is_now.dtype and was.tobytes() == is_now.tobytes(), name
    assert tables == (2 if kind == "untied" else 1)
    config = json.loads((tmp_path / "changed" / "config.json").read_text())
    five = mapping.new_ids.get(5)
    assert (config["vocab_size"], config["bos_token_id"]) == (NEW_SIZE, 0)
    assert config["eos_token_id"] == [1, *([] if five is None else [five])]
    assert config["pad_token_id"] is None and "tokenizer_class" not in config
    generation = json.loads((tmp_path / "changed" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 0, "eos_token_id": 1, "temperature": 0.6}
    opened = open_tokenizer(str(tmp_path / "changed"))
    assert (
        opened.fingerprint == open_tokenizer(str(new)).fingerprint
        and opened.size == open_checkpoint(tmp_path / "changed").config.vocabulary
    )


@pytest.mark.parametrize("method", ["mean", "gaussian", "overlap"])
def test_other_methods_make_other_rows_and_copy_the_same(method, tokenizers, tmp_path):
    old, new = tokenizers
    base = checkpoint(tmp_path / "base", "untied", old)
    change_vocabulary(base, str(new), str(tmp_path / "changed"), method=method, seed=1)
    before, after, mapping = open_folder(base), open_folder(tmp_path / "changed"), mapping_of(old, new)
    kept = mapping.copied >= 0
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        was, is_now = before.tensors[name].read(name), after.tensors[name].read(name)
        np.testing.assert_array_equal(is_now[kept], was[mapping.copied[kept]])
        made, mean = is_now[~kept], was[:OLD_SIZE].astype(np.float64).mean(axis=0)
        if method == "mean":
            np.testing.assert_allclose(made, np.broadcast_to(mean, made.shape), rtol=1e-6)
        elif method == "gaussian":
            assert made.std() == pytest.approx(was[:OLD_SIZE].std(), rel=0.15)
        else:  # inside of what the rows span, and nearer to it than a draw
            assert made.min() >= was.min() and made.max() <= was.max() and 0 < made.std() < was.std()


def test_a_run_becomes_the_folder_that_its_export_becomes(tokenizers, tmp_path):
    old, new = tokenizers
    base = checkpoint(tmp_path / "base", "untied", old)
    folder, run, config = open_checkpoint(base), tmp_path / "run", TINY.padded(50)
    write_model_folder(run, folder.original_config, folder.model_folder)
    params = folder.load_parameters(one_device(), config)
    with CheckpointStore(run / "checkpoints") as store:
        state = {"step": jnp.zeros((), jnp.int32), "params": params}
        store.save(0, state, {"lineage": folder.lineage.to_json(), "has_optimizer": False, "model": config.to_json()})
    for name, source in (("of_folder", base), ("of_run", str(run))):
        change_vocabulary(source, str(new), str(tmp_path / name))
    for name in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        assert (tmp_path / "of_run" / name).read_bytes() == (tmp_path / "of_folder" / name).read_bytes(), name


def test_added_tokens_leave_the_old_logits_as_they_were(tokenizers, tmp_path):
    _, old = tokenizers
    tokenizer = Tokenizer.from_file(str(old / "tokenizer.json"))
    assert tokenizer.add_tokens(["Verfassungsgericht", "kittens", " return x"]) == 3
    shutil.copytree(old, tmp_path / "extended")
    tokenizer.save(str(tmp_path / "extended" / "tokenizer.json"))
    family, config = LLAMA, dataclasses.replace(TINY, vocabulary=NEW_SIZE)
    export_folder(random_weights(config, 5), config, family, None, old, tmp_path / "base")
    change_vocabulary(str(tmp_path / "base"), str(tmp_path / "extended"), str(tmp_path / "more"))
    found = []
    ids = jnp.asarray(np.random.default_rng(0).integers(0, NEW_SIZE, (2, 24)), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(24), (2, 24))
    for name in ("base", "more"):
        opened = open_checkpoint(tmp_path / name)
        params = opened.load_parameters(one_device())
        found.append(np.asarray(logits(params, opened.config, Numerics(), ids, positions, jnp.ones_like(ids))))
    before, after = found
    assert after.shape[-1] == NEW_SIZE + 3
    np.testing.assert_array_equal(after[..., :NEW_SIZE], before)
    total = np.log(np.exp(after.astype(np.float64)).sum(-1)) - np.log(np.exp(before.astype(np.float64)).sum(-1))
    shift = np.asarray(jax.nn.log_softmax(before) - jax.nn.log_softmax(after)[..., :NEW_SIZE])
    np.testing.assert_allclose(shift, np.broadcast_to(total[..., None], shift.shape), atol=1e-5)
    encoded = open_tokenizer(str(tmp_path / "more")).encode("kittens return x")
    assert encoded == [NEW_SIZE + 1, NEW_SIZE + 2]


def test_a_change_is_told_done_once_and_never_mixed_with_another(tokenizers, tmp_path, capsys):
    old, new = tokenizers
    base, out = checkpoint(tmp_path / "base", "tied", old), tmp_path / "changed"
    change_vocabulary(base, str(new), str(out), dry_run=True)
    assert f"{NEW_SIZE}" in capsys.readouterr().out and not out.exists()
    (tmp_path / "changed.unrecorded").mkdir()  # a change that was killed
    change_vocabulary(base, str(new), str(out))
    printed = capsys.readouterr().out
    assert "copied" in printed and "8 rows of the checkpoint that are no token's" in printed
    assert "left out of config.json or generation_config.json: suppress_tokens" in printed
    change_vocabulary(base, str(new), str(out))
    assert "finished; nothing to do" in capsys.readouterr().out
    for other in ({"method": "mean"}, {"tokenizer": str(old)}, {"checkpoint": str(out)}):
        with pytest.raises(ConfigurationError, match="never overwrites"):
            change_vocabulary(**{"checkpoint": base, "tokenizer": str(new), "output_dir": str(out)} | other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "changed"]
    record = json.loads((out / "cptjax_export.json").read_text())
    assert record["new_tokens"] == NEW_SIZE and record["copied"] + record["made"] == NEW_SIZE


def test_what_cannot_be_is_refused(tokenizers, tmp_path):
    old, new = tokenizers
    base = checkpoint(tmp_path / "base", "tied", old)
    with pytest.raises(ConfigurationError, match="METHOD = 'zero'"):
        change_vocabulary(base, str(new), str(tmp_path / "out"), method="zero")
    # A folder whose tokenizer was exchanged by hand: refused here, by score, and wherever it is opened to be read with.
    larger = checkpoint(tmp_path / "larger", "tied", new)
    for refused in (
        lambda: change_vocabulary(larger, str(old), str(tmp_path / "out")),
        lambda: list(read_sequences(write_text(tmp_path), larger, ROWS)),
    ):
        with pytest.raises(ConfigurationError, match="420 pieces, its embedding 408 rows(.|\n)*change_vocabulary"):
            refused()
    # By its own config.json the file is read as it says; beside an OPT it is GPT-2's, which puts no space before a text.
    shutil.copytree(new, tmp_path / "prefix")
    source = json.loads((tmp_path / "prefix" / "tokenizer.json").read_text())
    source["pre_tokenizer"]["add_prefix_space"] = True
    declared = json.loads((tmp_path / "prefix" / "tokenizer_config.json").read_text())
    del declared["tokenizer_class"]
    for name, content in {"tokenizer": source, "tokenizer_config": declared, "config": {"model_type": "llama"}}.items():
        (tmp_path / "prefix" / f"{name}.json").write_text(json.dumps(content))
    narrow = checkpoint(tmp_path / "narrow", "narrow", old)
    with pytest.raises(ConfigurationError, match="read otherwise beside a model of type 'opt'"):
        change_vocabulary(narrow, str(tmp_path / "prefix"), str(tmp_path / "out"))
    file = SafetensorsFile(tmp_path / "base" / "model.safetensors")
    damaged = (
        (tmp_path / "base" / "model.safetensors")
        .read_bytes()
        .replace(file.read("model.norm.weight").tobytes(), b"\xff" * 64)
    )
    (tmp_path / "base" / "model.safetensors").write_bytes(damaged)
    with pytest.raises(CptjaxError, match="not finite"):
        change_vocabulary(base, str(new), str(tmp_path / "damaged"))
    assert not (tmp_path / "damaged").exists()


def write_text(folder):
    path = folder / "text.jsonl"
    path.write_text('{"text": "a cat"}\n')
    return path
