"""Rows of padding behind the vocabulary: no number of the model's changes, none of them is ever chosen, trained or exported."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.checkpoints.source import open_checkpoint, write_model_folder
from cptjax.checkpoints.store import CheckpointStore
from cptjax.errors import ConfigurationError
from cptjax.evaluation.generate import generate
from cptjax.evaluation.own_samples import Model, sample_losses
from cptjax.jobs.merge import merge
from cptjax.models.config import DecoderConfig
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.opt import OPT
from cptjax.models.model import abstract_weights, initialize, logits, parameter_counts, repadded, token_losses
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh
from cptjax.training.learning_rate import LearningRate
from cptjax.training.optimizer import AdamW
from cptjax.training.schedule import Phase, Schedule, compile_schedule
from cptjax.training.state import abstract_state, fresh_state
from cptjax.training.step import build_train_step
from cptjax.training.update import Update

TINY = DecoderConfig(vocabulary=45, hidden=16, layers=1, heads=4, kv_heads=2, head_dim=4, mlp=24)
TIED = dataclasses.replace(TINY, tied_embeddings=True)
NARROW = OPT.read_config(
    {
        "vocab_size": 45,
        "hidden_size": 16,
        "word_embed_proj_dim": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "ffn_dim": 24,
        "max_position_embeddings": 64,
        "do_layer_norm_before": False,
    }
)
TABLES = {"embedding.table": 0, "head.kernel": 1}  # the axis of the vocabulary


def mesh_of(devices=1, **sizes):
    return build_mesh(sizes or {"fsdp": devices}, jax.devices()[:devices])


def batch_of(rows, length, vocabulary, seed=0):
    ids = np.random.default_rng(seed).integers(0, vocabulary, (2, rows, length)).astype(np.int32)
    ones = np.ones((rows, length), np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    segments = {"segment_ids": ones, "positions": positions, "weights": ones.astype(np.float32)}
    return {name: jnp.asarray(value) for name, value in {"inputs": ids[0], "targets": ids[1], **segments}.items()}


def drawn(config):
    """Weights that nothing has to be compiled for."""
    rng, specs = np.random.default_rng(0), abstract_weights(config)
    return {name: rng.standard_normal(spec.shape).astype(np.float32) for name, spec in specs.items()}


def behind(params, config):
    """The rows of padding of each table."""
    return {
        name: np.take(params[name], range(config.vocabulary, config.vocabulary_rows), axis)
        for name, axis in TABLES.items()
        if name in params
    }


def test_a_multiple_makes_the_fewest_rows_and_a_config_without_padding_says_nothing_of_it():
    assert TINY.padded(8).padded_vocabulary == 48 and TINY.padded(128).vocabulary_rows == 128
    assert TINY.padded(15) == TINY.padded(1) == TINY.padded(8).unpadded() == TINY
    assert "padded_vocabulary" not in TINY.to_json()
    assert DecoderConfig.from_json(TINY.padded(8).to_json()) == TINY.padded(8)
    assert parameter_counts(TINY.padded(8)) == parameter_counts(TINY)
    for value in (45, 40, 0, True):
        with pytest.raises(ConfigurationError, match="padded_vocabulary"):
            dataclasses.replace(TINY, padded_vocabulary=value)


@pytest.mark.parametrize(
    "config", [TINY, pytest.param(NARROW, marks=pytest.mark.slow)], ids=["untied", "narrow and tied"]
)
def test_losses_and_gradients_are_those_without_padding(config):
    padded, mesh, batch = config.padded(8), mesh_of(), batch_of(3, 12, 45)
    params, more = initialize(config, 0, mesh), initialize(padded, 0, mesh)
    for name, value in repadded(params, padded, mesh).items():  # the same draw, zeros behind
        np.testing.assert_array_equal(value, more[name])

    def measured(params, config):
        def mean(params):
            losses = token_losses(params, config, Numerics(), batch)
            return losses.mean(), losses

        return jax.jit(jax.grad(mean, has_aux=True))(params)

    (expected, losses), (found, same) = measured(params, config), measured(more, padded)
    np.testing.assert_allclose(same, losses, rtol=1e-6)
    for name, value in found.items():
        kept = np.asarray(value)[tuple(map(slice, expected[name].shape))]
        np.testing.assert_allclose(kept, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert all(not rows.any() and rows.size for rows in behind(found, padded).values())
    scores = logits(more, padded, Numerics(), batch["inputs"], batch["positions"], batch["segment_ids"])
    assert np.isneginf(scores[..., 45:]).all() and np.isfinite(scores[..., :45]).all()


def test_a_row_of_padding_is_never_written_and_the_divergence_leaves_it_out():
    mesh, padded = mesh_of(), TINY.padded(16)
    params = initialize(TINY, 1, mesh)
    # Every real logit is far below 0, which a row of zeros would give.
    params["final_norm.scale"] = jnp.abs(params["final_norm.scale"]) * 50
    more = repadded(params, padded, mesh)
    for temperature in (0.0, 1.0, 50.0):
        written = generate(more, padded, Numerics(), mesh, [[1]] * 40, 6, temperature, 3)
        assert max(max(tokens) for tokens in written) < 45
        if not temperature:
            assert written == generate(params, TINY, Numerics(), mesh, [[1]] * 40, 6, temperature, 3)
    models = [Model(params, TINY, Numerics()), Model(more, padded, Numerics())]
    samples = [[1, 2, 3, 4], [5, 6, 7]]
    for base, other in (models, models[::-1]):
        measured = sample_losses(base, other, mesh, samples)
        assert np.abs(measured.kl).max() < 1e-5 and np.isfinite(measured.nats).all()


@pytest.mark.slow
def test_a_sharded_step_keeps_padding_at_zero_and_its_losses_are_those_without():
    rate: LearningRate = compile_schedule(Schedule(1e-2, "peak", (Phase("hold"),)), 4, 4 * 12)
    found = {}
    for config in (TINY, TINY.padded(4)):
        mesh = mesh_of(8, fsdp=2, tensor=4)
        update = Update(AdamW().transformation(abstract_weights(config)), rate)
        abstract = abstract_state(config, update, mesh)
        state = fresh_state(initialize(config, 0, mesh), abstract, update)
        step, losses = build_train_step(config, Numerics(), update, mesh, abstract, 1), []
        with jax.set_mesh(mesh):
            for i in range(4):
                state, metrics = step(state, batch_of(4, 12, 45, seed=i))
                losses.append(float(metrics["loss"]))
        found[config] = losses, jax.device_get(state["params"]), state["params"]["embedding.table"].sharding
    (losses, params, whole), (same, more, cut) = found.values()
    assert whole.shard_shape((45, 16))[0] == 45 and cut.shard_shape((48, 16))[0] == 12
    np.testing.assert_allclose(same, losses, rtol=1e-5)
    np.testing.assert_allclose(more["head.kernel"][:, :45], params["head.kernel"], atol=1e-4)
    assert all(not rows.any() for rows in behind(more, TINY.padded(4)).values())


@pytest.mark.parametrize(
    "config, family", [(TINY, LLAMA), (TIED, LLAMA), (NARROW, OPT)], ids=["untied", "tied", "narrow"]
)
def test_an_export_leaves_padding_out_and_reading_puts_it_back(config, family, tmp_path):
    padded, mesh = config.padded(8), mesh_of(8, fsdp=2, tensor=4)
    params, shapes = drawn(config), {name: spec.shape for name, spec in abstract_weights(padded).items()}
    behind = {n: [(0, more - size) for more, size in zip(shapes[n], x.shape, strict=True)] for n, x in params.items()}
    more = {name: np.pad(value, behind[name]) for name, value in params.items()}
    export_folder(params, config, family, None, None, tmp_path / "plain")
    export_folder(more, padded, family, None, None, tmp_path / "padded")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "padded" / name).read_bytes()
    read = load_parameters(open_folder(tmp_path / "plain"), mesh, padded)
    assert read["embedding.table"].sharding.shard_shape((48, 16))[0] == 12
    for name, value in more.items():
        np.testing.assert_array_equal(read[name], value)


def test_a_run_that_is_padded_is_opened_exported_and_merged_as_one_that_is_not(tmp_path):
    padded, mesh = TINY.padded(8), mesh_of()
    params = repadded({n: jnp.asarray(x) for n, x in drawn(TINY).items()}, padded, mesh)
    export_folder(params, padded, LLAMA, None, None, tmp_path / "folder")
    folder, run = open_checkpoint(tmp_path / "folder"), tmp_path / "run"
    write_model_folder(run, folder.original_config, folder.model_folder)
    with CheckpointStore(run / "checkpoints") as store:
        state = {"step": jnp.zeros((), jnp.int32), "params": params}
        store.save(0, state, {"lineage": folder.lineage.to_json(), "has_optimizer": False, "model": padded.to_json()})
    opened = open_checkpoint(run)
    assert opened.config == padded
    for config in (padded, TINY, TINY.padded(32)):
        read, expected = opened.load_parameters(mesh, config), repadded(params, config, mesh)
        for name, value in expected.items():
            np.testing.assert_array_equal(read[name], value)
    merge([str(run), str(tmp_path / "folder")], str(tmp_path / "merged"))
    merged, tensors = (open_folder(tmp_path / name).tensors for name in ("merged", "folder"))
    for name in tensors:
        np.testing.assert_array_equal(merged[name].read(name), tensors[name].read(name), err_msg=name)
