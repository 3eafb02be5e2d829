"""Experts against every expert computed for every token; one function on any mesh; the router's loss is transformers'."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from test_model import mesh_of, packed_batch, products

from cptjax.models.config import DecoderConfig
from cptjax.models.experts import choice, mixed, routing_of
from cptjax.models.model import (
    abstract_weights,
    initialize,
    measure,
    parameter_counts,
    token_losses,
    weight_shardings,
)
from cptjax.models.numerics import Numerics
from cptjax.training.step import loss_and_gradients

CONFIG = DecoderConfig(
    vocabulary=64,
    hidden=32,
    layers=4,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp=48,
    windows=(None, 5),
    dense_layers=(True, False),
    experts=5,
    experts_per_token=2,
    expert_mlp=24,
)
ROUTER_LOSS = 0.3
NUMERICS = Numerics()


def dense(x, chosen, shares, gate, up, down):
    """All experts for all tokens; those that were not chosen count nothing."""
    inner = jax.nn.silu(jnp.einsum("bth,ehm->betm", x, gate)) * jnp.einsum("bth,ehm->betm", x, up)
    results = jnp.einsum("betm,emh->beth", inner, down)
    share = jnp.sum(shares[..., None] * (chosen[..., None] == jnp.arange(len(gate))), axis=-2)
    return jnp.einsum("bte,beth->bth", share, results)


@functools.lru_cache
def with_gradients(function, **settings):
    def weighed(differentiable, chosen, cotangent):
        x, shares, *kernels = differentiable
        result = function(x, chosen, shares, *kernels, **settings)
        return jnp.sum(result * cotangent), result

    return jax.jit(jax.value_and_grad(weighed, has_aux=True))


@pytest.mark.parametrize("per_token", [1, 2, 5])
@settings(max_examples=15)
@given(data=st.data())
def test_sorted_by_expert_or_all_computed_is_the_same(per_token, data):
    """Whatever is chosen: experts that no token gets, or that all tokens get, tokens with one expert or all of them."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    experts, available = 5, data.draw(st.integers(per_token, 5))  # the others stay without a token
    among = rng.permutation(experts)[:available]
    chosen = np.stack([rng.permutation(among)[:per_token] for _ in range(12)]).reshape(2, 6, per_token)
    shapes = [(2, 6, 8), (2, 6, per_token), (experts, 8, 4), (experts, 8, 4), (experts, 4, 8)]
    arguments = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    chosen, cotangent = jnp.asarray(chosen, jnp.int32), jnp.asarray(rng.normal(size=shapes[0]), jnp.float32)
    with jax.default_matmul_precision("highest"):
        (_, expected), wanted = with_gradients(dense)(arguments, chosen, cotangent)
        (_, found), gradients = with_gradients(mixed, activation=jax.nn.silu, numerics=NUMERICS)(
            arguments, chosen, cotangent
        )
    for mine, other in zip([found, *gradients], [expected, *wanted], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    unused = sorted(set(range(experts)) - set(np.unique(chosen).tolist()))
    assert all(np.all(np.asarray(kernel)[unused] == 0) for kernel in gradients[2:])


def test_the_most_probable_are_chosen_and_the_lower_number_where_they_are_equal():
    probabilities = jnp.asarray([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25], [0.2, 0.3, 0.2, 0.3]])
    chosen, shares = choice(probabilities, 2, renormalised=False)
    assert chosen.tolist() == [[1, 2], [0, 1], [1, 3]]
    assert np.array_equal(shares, np.take_along_axis(np.asarray(probabilities), np.asarray(chosen), -1))
    _, shares = choice(probabilities, 2, renormalised=True)
    np.testing.assert_allclose(shares, [[4 / 7, 3 / 7], [0.5, 0.5], [0.5, 0.5]], rtol=1e-6)


def test_renormalised_or_not_the_gradient_of_shares_is_the_right_one():
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(7, 5)), jnp.float32)
    for renormalised in (True, False):

        def taken(scores, renormalised=renormalised):
            _, shares = choice(jax.nn.softmax(scores), 2, renormalised)
            return jnp.sum(shares * jnp.asarray([1.0, -2.0]))

        check_grads(taken, (scores,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


@pytest.fixture(scope="module")
def params():
    return initialize(CONFIG, 0, mesh_of({"fsdp": 1}))


def with_router_loss(params, numerics, batch):
    batch = batch | {"weights": (batch["segment_ids"] > 0).astype(jnp.float32)}
    function = jax.jit(lambda params, batch: loss_and_gradients(params, batch, CONFIG, numerics, 1, 1, ROUTER_LOSS))
    summed = function(params, batch)
    return jax.device_get({"nats": summed.nats, "balance": summed.router_loss} | summed.gradients)


@pytest.fixture(scope="module")
def expected(params):
    return with_router_loss(params, Numerics(), packed_batch())


def assert_equal_up_to_rounding(found, expected):
    assert expected["balance"] > 2  # two experts a token, not quite evenly
    for name, value in expected.items():
        error = np.linalg.norm(found[name] - value) / np.linalg.norm(value)
        assert error < 1e-5, f"{name}: {error:.1e}"


@pytest.mark.parametrize(
    "sizes",
    # Of the last one `fsdp` does not divide the batch and is left with whole rows.
    [
        pytest.param({"fsdp": 8}, marks=pytest.mark.slow),
        {"replica": 2, "context": 2, "tensor": 2},
        pytest.param({"fsdp": 3, "tensor": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_meshes_agree(params, expected, sizes):
    mesh = mesh_of(sizes)
    placed = jax.device_put(params, weight_shardings(CONFIG, mesh))
    with jax.set_mesh(mesh):
        found = with_router_loss(placed, Numerics(), packed_batch())
    assert_equal_up_to_rounding(found, expected)


@pytest.mark.parametrize(
    "numerics, sizes",
    [
        (Numerics(scan_layers=False), {"fsdp": 1}),
        (Numerics(remat="full"), {"tensor": 5}),  # which divides nothing: every device has whole experts
        (Numerics(remat="dots_without_batch"), {"fsdp": 2, "tensor": 2}),
    ],
    ids=str,
)
def test_scanning_and_recomputing_change_nothing(params, expected, numerics, sizes):
    mesh = mesh_of(sizes)
    with jax.set_mesh(mesh):
        found = with_router_loss(jax.device_put(params, weight_shardings(CONFIG, mesh)), numerics, packed_batch())
    assert_equal_up_to_rounding(found, expected)


def test_each_device_sorts_its_own_tokens(params):
    """In the program for a mesh no product with experts has the rows of other devices' tokens."""
    mesh = mesh_of({"fsdp": 4, "tensor": 2})
    batch = packed_batch()
    with jax.set_mesh(mesh):
        jaxpr = jax.make_jaxpr(lambda params: token_losses(params, CONFIG, Numerics(), batch))(params)
    shapes = {
        tuple(v.aval.shape for v in equation.invars[:2]) for equation, _ in products(jaxpr.jaxpr, "ragged_dot_general")
    }
    rows, length = batch["inputs"].shape
    pairs = rows * length * CONFIG.experts_per_token // 4
    assert shapes == {((pairs, 32), (5, 32, 12)), ((pairs, 12), (5, 12, 32))}


def test_every_float32_product_with_experts_names_its_precision(params):
    batch = packed_batch(rows=2)
    for dtype, precision in (("float32", jax.lax.Precision.HIGHEST), ("bfloat16", jax.lax.Precision.DEFAULT)):
        numerics = Numerics(dtype)
        jaxpr = jax.make_jaxpr(jax.grad(lambda p, n=numerics: token_losses(p, CONFIG, n, batch).sum()))(params)
        found = [equation for equation, _ in products(jaxpr.jaxpr, "ragged_dot_general")]
        assert len(found) >= 9
        for equation in found:
            assert equation.params["precision"] in (precision, (precision,) * 2), equation
            assert {variable.aval.dtype for variable in equation.invars[:2]} == {jnp.dtype(dtype)}


def test_in_bfloat16_tokens_are_given_to_nearly_the_same_experts(params):
    batch = packed_batch()
    exact, rounded = (
        jax.jit(lambda p, n=Numerics(dtype): measure(p, CONFIG, n, batch))(params) for dtype in ("float32", "bfloat16")
    )
    assert rounded.nats.dtype == jnp.float32 and abs(float(rounded.nats.sum() / exact.nats.sum()) - 1) < 0.02
    assert np.abs(rounded.routing.chosen - exact.routing.chosen).sum() < 0.05 * exact.routing.chosen.sum()


def test_routing_counts_tokens_but_no_padding(params):
    batch = packed_batch()
    routing = jax.jit(lambda params: measure(params, CONFIG, Numerics(), batch).routing)(params)
    tokens = int((batch["segment_ids"] > 0).sum()) * 2  # two of the four layers have experts
    assert routing.tokens == tokens and routing.chosen.sum() == 2 * tokens
    assert float(routing.probabilities.sum()) == pytest.approx(tokens, rel=1e-5)


def test_the_load_balancing_loss_is_least_where_experts_are_chosen_alike():
    even = jnp.full((1, 6, 3), 1 / 3)
    all_alike = jnp.asarray([[0], [1], [2]] * 2)[None]
    counted = jnp.ones((1, 6), bool)
    assert float(routing_of(even, all_alike, counted).loss()) == pytest.approx(1.0)
    one = jnp.asarray(np.eye(3)[[1] * 6])[None]
    assert float(routing_of(one, jnp.ones((1, 6, 1), jnp.int32), counted).loss()) == pytest.approx(3.0)


def test_accumulated_slices_count_by_their_weight():
    """Of the load-balancing loss, which is not linear in the tokens."""
    config = dataclasses.replace(CONFIG, layers=1, windows=(None,), dense_layers=())
    params = initialize(config, 0, mesh_of({"fsdp": 1}))
    batch = packed_batch()
    batch = batch | {"weights": (batch["segment_ids"] > 0) * jnp.arange(1.0, 9.0)[:, None]}
    compute = jax.jit(
        lambda batch, slices: loss_and_gradients(params, batch, config, Numerics(), slices, 1, ROUTER_LOSS),
        static_argnums=1,
    )
    found = compute(batch, 2)
    parts = [{name: array[first::2] for name, array in batch.items()} for first in (0, 1)]
    each = [compute(part, 1) for part in parts]
    weights = [float(part["weights"].sum()) for part in parts]
    np.testing.assert_allclose(found[0], sum(one[0] for one in each), rtol=1e-5)
    assert float(found[3]) == pytest.approx(np.average([float(one[3]) for one in each], weights=weights), rel=1e-5)
    for name, gradient in found[2].items():
        mean = np.average([one[2][name] for one in each], axis=0, weights=weights)
        np.testing.assert_allclose(gradient, mean, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe, renormalised, tied, biases, dense layers, window"])
def test_the_load_balancing_loss_and_its_gradient_are_those_of_transformers(name, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from test_parity import make_theirs, one_device

    from cptjax.checkpoints.hugging_face import open_folder
    from cptjax.checkpoints.loading import load_parameters

    model = make_theirs(name, tmp_path)
    folder = open_folder(tmp_path)
    config, params = folder.decoder_config, load_parameters(folder, one_device())
    ids = np.random.default_rng(0).integers(0, config.vocabulary, (2, 17))
    mask = np.ones_like(ids)
    mask[1, 11:] = 0
    loss = model(torch.tensor(ids), attention_mask=torch.tensor(mask), output_router_logits=True).aux_loss
    loss.backward()
    zeros = jnp.zeros_like(ids)
    batch = {"inputs": ids, "targets": zeros, "segment_ids": mask, "positions": zeros + jnp.arange(17)}
    compute = jax.value_and_grad(lambda params: measure(params, config, Numerics(), batch).routing.loss())
    ours, gradients = jax.jit(compute)(params)
    assert float(ours) == pytest.approx(loss.item(), rel=1e-5)
    routers = [layer.mlp.gate.weight.grad.T for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    (mine,) = (gradient for name, gradient in gradients.items() if name.endswith("router.kernel"))
    np.testing.assert_allclose(mine, torch.stack(routers), rtol=1e-3, atol=1e-5 * float(np.abs(mine).max()))


def test_a_mixtures_weights_and_the_share_of_them_that_a_token_reads():
    weights = abstract_weights(CONFIG)
    assert weights["layers.pattern_1.mlp.experts.down.kernel"].counts == (2, 5)
    assert weights["layers.pattern_1.mlp.router.kernel"].counts == (2,)
    counts = parameter_counts(CONFIG)
    assert counts.total - counts.active == 2 * 3 * 3 * 32 * 24  # layers x idle experts x matrices
    shardings = weight_shardings(CONFIG, mesh_of({"fsdp": 4, "tensor": 2}))
    name = "layers.pattern_1.mlp.experts.up.kernel"
    assert shardings[name].shard_shape(weights[name].shape) == (2, 5, 8, 12)
