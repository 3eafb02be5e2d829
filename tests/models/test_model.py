"""The decoder's promises: one function on any mesh, scanned or not, recomputed or not; documents apart; float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.models.config import DecoderConfig, Llama3Rope
from cptjax.models.model import abstract_weights, initialize, logits, parameter_counts, token_losses, weight_shardings
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

CONFIG = DecoderConfig(
    vocabulary=64,
    hidden=32,
    layers=4,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp=48,
    windows=(None, 5),
    rope_scaling=Llama3Rope(8.0, 1.0, 4.0, 16),
    query_key_value_bias=True,
    output_bias=True,
    mlp_bias=True,
)
MESHES = {
    "one": {"fsdp": 1},
    "fsdp": {"fsdp": 8},
    "tensor": {"fsdp": 4, "tensor": 2},
    "replica": {"replica": 2, "fsdp": 4},
}


def mesh_of(sizes):
    count = int(np.prod(list(sizes.values())))
    return build_mesh(sizes, jax.devices()[:count])


def packed_batch(rows=8, length=24):
    """Rows of two documents and padding."""
    rng = np.random.default_rng(0)
    segments = np.tile(np.repeat([1, 2, 0], [9, 11, 4]), (rows, 1))
    positions = np.tile(np.concatenate([np.arange(9), np.arange(11), np.arange(4)]), (rows, 1))
    inputs, targets = rng.integers(0, CONFIG.vocabulary, (2, rows, length))
    arrays = {"inputs": inputs, "targets": targets, "segment_ids": segments, "positions": positions}
    return {name: jnp.asarray(array, jnp.int32) for name, array in arrays.items()}


def randomised(params):
    """Biases and norms random too, which start at 0 and 1."""
    rng = np.random.default_rng(1)
    noise = {name: jnp.asarray(0.2 * rng.normal(size=value.shape), jnp.float32) for name, value in params.items()}
    return {n: value if n.endswith((".kernel", ".table")) else value + noise[n] for n, value in params.items()}


def losses_and_gradients(params, numerics, batch):
    def total(params):
        losses = token_losses(params, CONFIG, numerics, batch)
        return losses.sum(), losses

    (_, losses), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    return losses, gradients


@pytest.fixture(scope="module")
def params():
    return randomised(initialize(CONFIG, 0, mesh_of(MESHES["one"])))


@pytest.fixture(scope="module")
def expected(params):
    return losses_and_gradients(params, Numerics(), packed_batch())


@pytest.mark.parametrize(
    "numerics",
    [
        Numerics(scan_layers=False),
        Numerics(remat="full"),
        Numerics(remat="dots"),
        Numerics(remat="dots_without_batch"),
        Numerics(remat="attention_output", scan_layers=False),
    ],
    ids=str,
)
def test_scanning_and_recomputing_change_nothing(params, expected, numerics):
    losses, gradients = losses_and_gradients(params, numerics, packed_batch())
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        scale = np.abs(expected[1][name]).max()
        np.testing.assert_allclose(gradient, expected[1][name], rtol=1e-5, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("mesh", MESHES)
def test_meshes_agree(params, expected, mesh):
    mesh = mesh_of(MESHES[mesh])
    placed = jax.device_put(params, weight_shardings(CONFIG, mesh))
    with jax.set_mesh(mesh):
        losses, gradients = losses_and_gradients(placed, Numerics(), packed_batch())
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        scale = np.abs(expected[1][name]).max()
        np.testing.assert_allclose(gradient, expected[1][name], rtol=1e-5, atol=1e-5 * scale, err_msg=name)


@pytest.mark.slow
def test_initialisation_is_the_same_on_every_mesh():
    config = dataclasses.replace(CONFIG, windows=(None,))
    first, *others = (initialize(config, 7, mesh_of(sizes)) for sizes in MESHES.values())
    assert {n: value.shape for n, value in first.items()} == {n: s.shape for n, s in abstract_weights(config).items()}
    for other in others:
        for name, value in first.items():
            assert np.array_equal(value, other[name]), name
    differs = initialize(config, 8, mesh_of(MESHES["one"]))
    assert not np.array_equal(first["embedding.table"], differs["embedding.table"])


def test_initial_weights_are_normal():
    from scipy import stats

    from cptjax.models.weights import normal

    drawn = np.asarray(normal(0.02)(jax.random.key(0), (200_000,), jnp.float32), np.float64) / 0.02
    assert abs(drawn.mean()) < 0.01 and abs(drawn.std() - 1) < 0.01
    assert stats.kstest(drawn[:20_000], "norm").pvalue > 0.01 and abs(stats.kurtosis(drawn)) < 0.15


def test_weights_are_cut_over_the_mesh():
    params = initialize(CONFIG, 0, mesh_of(MESHES["tensor"]))
    query = params["layers.pattern_0.attention.query.kernel"]
    assert query.shape == (2, 32, 4, 8) and query.addressable_shards[0].data.shape == (2, 8, 2, 8)
    assert params["head.kernel"].addressable_shards[0].data.shape == (8, 32)


def test_documents_do_not_see_each_other_and_padding_costs_nothing(params):
    """Through the whole model, bit for bit: losses of document 2, and the gradients of its loss in the layers."""
    batch = packed_batch(rows=2)

    @jax.jit
    def of_second(params, batch):
        def loss(params):
            losses = token_losses(params, CONFIG, Numerics(), batch)
            return jnp.sum(jnp.where(batch["segment_ids"] == 2, losses, 0.0)), losses

        (_, losses), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return losses, gradients

    changed = jnp.where(batch["segment_ids"] == 2, batch["inputs"], (batch["inputs"] + 17) % CONFIG.vocabulary)
    losses, gradients = of_second(params, batch)
    losses_changed, gradients_changed = of_second(params, batch | {"inputs": changed})
    assert np.array_equal(losses[:, 9:20], losses_changed[:, 9:20])
    assert not np.array_equal(losses[:, :9], losses_changed[:, :9])
    assert np.all(np.asarray(losses[:, 20:]) == 0)
    # Weight gradients sum over all tokens: those of document 1 and of padding add exact zeros.
    for name, gradient in gradients.items():
        if name != "embedding.table":
            assert np.array_equal(gradient, gradients_changed[name]), name
        assert np.isfinite(gradient).all(), name


def products(jaxpr, primitive="dot_general"):
    """Every dot_general (or other) equation of a jaxpr, with the number of times that loops run it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == primitive:
            yield equation, 1
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                for found, count in products(inner, primitive):
                    yield found, count * times


def test_every_float32_product_names_its_precision(params):
    """Forward and backward. On a TPU a product without one would round its float32 inputs to bfloat16."""
    batch = packed_batch(rows=2)
    jaxpr = jax.make_jaxpr(jax.grad(lambda params: token_losses(params, CONFIG, Numerics(), batch).sum()))(params)
    found = [equation for equation, _ in products(jaxpr.jaxpr)]
    assert len(found) > 40
    for equation in found:
        assert equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2, equation


def test_bfloat16_multiplies_in_bfloat16_and_gives_float32_losses(params, expected):
    batch = packed_batch()
    numerics = Numerics(compute_dtype="bfloat16")
    jaxpr = jax.make_jaxpr(lambda params: token_losses(params, CONFIG, numerics, batch))(params)
    for equation, _ in products(jaxpr.jaxpr):
        assert {variable.aval.dtype for variable in equation.invars} == {jnp.dtype("bfloat16")}
    losses, gradients = losses_and_gradients(params, numerics, batch)
    assert losses.dtype == jnp.float32 and gradients["head.kernel"].dtype == jnp.float32
    assert abs(float(losses.sum()) / float(expected[0].sum()) - 1) < 0.02


def test_a_pattern_is_its_layers_in_order():
    """Windows (5, 5) with the layers dealt out alternately are windows (5,) with the layers stacked."""
    mesh = mesh_of(MESHES["one"])
    single = dataclasses.replace(CONFIG, windows=(5,))
    double = dataclasses.replace(CONFIG, windows=(5, 5))
    stacked = randomised(initialize(single, 0, mesh))
    dealt = {}
    for name, value in stacked.items():
        if not name.startswith("layers."):
            dealt[name] = value
            continue
        for position in range(2):
            dealt[name.replace("layers.", f"layers.pattern_{position}.")] = value[position::2]
    batch = packed_batch(rows=1)
    arguments = batch["inputs"], batch["positions"], batch["segment_ids"]
    np.testing.assert_allclose(
        logits(stacked, single, Numerics(), *arguments), logits(dealt, double, Numerics(), *arguments), atol=1e-5
    )


PUBLISHED = {
    # name: (config, parameters as the model's card and files have them)
    "Llama 2 7B": (DecoderConfig(32000, 4096, 32, 32, 32, 128, 11008), 6_738_415_616),
    "Llama 3 8B": (DecoderConfig(128256, 4096, 32, 32, 8, 128, 14336), 8_030_261_248),
    "Mistral 7B": (DecoderConfig(32000, 4096, 32, 32, 8, 128, 14336), 7_241_732_096),
    "Qwen2 0.5B": (
        DecoderConfig(151936, 896, 24, 14, 2, 64, 4864, query_key_value_bias=True, tied_embeddings=True),
        494_032_768,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    config, total = PUBLISHED[name]
    counts = parameter_counts(config)
    assert counts.total == counts.active == total
    tables = 1 if config.tied_embeddings else 2
    assert counts.non_embedding == total - tables * config.vocabulary * config.hidden
