"""The head's product and cross-entropy in one operation, against their definition in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.kernels.head_cuts import KEPT_ON_CPU, LOGITS, cut_into_blocks
from cptjax.kernels.linear_cross_entropy import linear_cross_entropy
from cptjax.models.head import cut_over_mesh
from cptjax.sharding.mesh import build_mesh
from cptjax.sharding.rules import sharding_of

Z_LOSS = 0.05
# The most tokens and columns of a block: all in one; several of each, and what divides neither; one axis alone.
LIMITS = [None, (5, 12), (21, 7), (4, 53), (21, 53)]


def definition(hidden, kernel, targets, weights, vocabulary, soft_cap):
    """Losses and their gradients (of sum(weights * (nats + z))) in float64: (nats, squares, of hidden, of kernel)."""
    hidden, kernel, weights = (np.asarray(x, np.float64) for x in (hidden, kernel, weights))
    kernel = kernel[:, :vocabulary]
    logits = hidden @ kernel
    capped = logits if soft_cap is None else soft_cap * np.tanh(logits / soft_cap)
    log_total = np.log(np.exp(capped - capped.max(-1, keepdims=True)).sum(-1)) + capped.max(-1)
    picked = np.arange(vocabulary) == targets[..., None]
    nats = log_total - (picked * capped).sum(-1)
    probabilities = np.exp(capped - log_total[..., None])
    of_logits = probabilities * (1 + 2 * Z_LOSS * log_total)[..., None] - picked
    of_logits *= weights[..., None] * (1 if soft_cap is None else 1 - (capped / soft_cap) ** 2)
    of_kernel = hidden.reshape(-1, hidden.shape[-1]).T @ of_logits.reshape(-1, vocabulary)
    return weights * nats, weights * log_total**2, of_logits @ kernel.T, of_kernel


@functools.partial(jax.jit, static_argnames=("vocabulary_axis", "vocabulary", "soft_cap", "limits"))
def compute(hidden, kernel, targets, weights, **told):
    def total(hidden, kernel):
        cut = cut_over_mesh(targets.shape, kernel.shape, told["vocabulary_axis"])
        losses = linear_cross_entropy(hidden, kernel, targets, weights=weights, cut=cut, **told)
        return jnp.sum(losses.nats + Z_LOSS * losses.squared_log_total), losses

    (_, losses), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(hidden, kernel)
    return *losses, *gradients


def ours(hidden, kernel, targets, weights, vocabulary_axis, **told):
    """The same four of `linear_cross_entropy`, the kernel's gradient as [width, rows]."""
    kernel = kernel if vocabulary_axis else kernel.T
    nats, squares, of_hidden, of_kernel = compute(
        hidden, kernel, targets, weights, vocabulary_axis=vocabulary_axis, **told
    )
    return nats, squares, of_hidden, of_kernel if vocabulary_axis else of_kernel.T


def drawn(seed, rows=53, tokens=(3, 7), width=8, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    hidden, kernel = rng.normal(size=(*tokens, width)), rng.normal(size=(width, rows))
    weights = rng.normal(size=tokens) * (rng.random(tokens) < 0.8)  # some are 0
    targets = rng.integers(-1, rows + 1, tokens)  # some are no row of the vocabulary
    return jnp.asarray(hidden, dtype), jnp.asarray(kernel, dtype), targets, jnp.asarray(weights, jnp.float32)


def assert_close(found, expected, tolerance, vocabulary):
    for name, mine, exact in zip(("nats", "squares", "hidden", "kernel"), found, expected, strict=True):
        mine = np.asarray(mine, np.float64)
        if name == "kernel":
            assert not mine[:, vocabulary:].any()  # padding is not trained
            mine = mine[:, :vocabulary]
        error = np.linalg.norm(mine - exact) / np.linalg.norm(exact)
        assert error < tolerance, f"{name}: {error:.1e}"


@settings(max_examples=24, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    vocabulary=st.sampled_from([53, 41]),  # of 53 rows
    soft_cap=st.sampled_from([None, 2.0]),
    limits=st.sampled_from(LIMITS),
    vocabulary_axis=st.sampled_from([0, 1]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_losses_and_gradients_are_those_of_the_definition(seed, vocabulary, soft_cap, limits, vocabulary_axis, dtype):
    given = drawn(seed, dtype=dtype)
    told = {"vocabulary": vocabulary, "soft_cap": soft_cap}
    found = ours(*given, vocabulary_axis, **told, limits=limits)
    assert [x.dtype for x in found] == ["float32", "float32", dtype, dtype]
    assert_close(found, definition(*given, **told), 2e-5 if dtype == "float32" else 2e-2, vocabulary)


@pytest.mark.parametrize(
    "sizes",
    [
        {"fsdp": 2, "tensor": 4},
        {"replica": 2, "fsdp": 2, "tensor": 2},
        {"fsdp": 2, "context": 2, "tensor": 2},
        {"fsdp": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("limits", [None, (3, 5)])
@pytest.mark.parametrize("batch", [4, 3])  # of three rows nothing is cut by fsdp
def test_meshes_agree(sizes, limits, batch):
    """Of 56 rows with tensor = 4 the last device has padding alone; the batch or the vocabulary may not be divided."""
    hidden, kernel, targets, weights = drawn(1, 56, (batch, 8), 16)
    told = {"vocabulary": 41, "soft_cap": 3.0}
    expected = definition(hidden, kernel, targets, weights, **told)
    mesh = build_mesh(sizes, jax.devices())
    for axis in (0, 1):
        hidden = jax.device_put(hidden, sharding_of(mesh, ("batch", "sequence", None), hidden.shape))
        kernel = jax.device_put(kernel, sharding_of(mesh, ("hidden", "vocabulary"), kernel.shape))
        with jax.set_mesh(mesh):
            found = ours(hidden, kernel, targets, weights, axis, **told, limits=limits)
        assert_close(found, expected, 2e-5, 41)


def compiled_gradient(tokens, rows, width=4):
    shapes = [((tokens, width), jnp.float32), ((width, rows), jnp.float32), ((tokens,), jnp.int32)]
    gradient = jax.grad(lambda h, k, t: jnp.sum(linear_cross_entropy(h, k, t).nats), (0, 1))
    return jax.jit(gradient).lower(*(jax.ShapeDtypeStruct(*shape) for shape in shapes)).compile()


def test_many_logits_are_never_there_at_once_and_nothing_is_scattered():
    tokens, rows = 1000, 80000
    assert tokens * rows > KEPT_ON_CPU
    program = compiled_gradient(tokens, rows).as_text()
    sizes = [np.prod([int(n) for n in found.split(",")]) for found in re.findall(r"f32\[([\d,]+)\]", program)]
    assert max(sizes) <= 1000 * 4224 < tokens * rows  # a block, and no transpose or reshape of more
    assert " scatter(" not in program and " gather(" not in program
    assert " scatter(" not in compiled_gradient(100, 200).as_text()


def test_temporary_memory_does_not_grow_with_the_vocabulary():
    temporary = [compiled_gradient(2048, rows).memory_analysis().temp_size_in_bytes for rows in (65536, 262144)]
    assert temporary[1] < 1.05 * temporary[0]


@settings(deadline=None)
@given(st.integers(1, 70_000), st.integers(1, 300_000))
def test_blocks_cover_everything_and_are_small(tokens, columns):
    blocks = cut_into_blocks(tokens, columns, None)
    assert blocks.tokens * blocks.token_blocks >= tokens and blocks.tokens * (blocks.token_blocks - 1) < tokens
    assert blocks.columns * blocks.column_blocks >= columns and blocks.columns * (blocks.column_blocks - 1) < columns
    assert blocks.columns <= columns and (blocks.single or blocks.tokens * blocks.columns <= LOGITS)


def test_large_logits_stay_finite():
    kernel = jnp.asarray([[1e4, -1e4, 0.0]])
    for limits in (None, (1, 1)):
        for target, expected in ((0, 0.0), (1, 2e4)):
            found = ours(jnp.ones((1, 1)), kernel, np.array([target]), jnp.ones(1), 1, limits=limits)
            assert found[0][0] == expected and all(np.isfinite(x).all() for x in found)


def test_shapes_that_do_not_fit_are_refused():
    hidden, kernel, targets, weights = drawn(0)
    for wrong in ({"targets": targets[:2]}, {"weights": weights[0]}, {"vocabulary_axis": 0}):
        told = {"targets": targets, "weights": weights} | wrong
        with pytest.raises(ValueError, match="do not fit"):
            linear_cross_entropy(hidden, kernel, **told)
    for wrong in ({"vocabulary": 0}, {"vocabulary": 54}, {"limits": (0, 5)}):
        with pytest.raises(ValueError, match="linear_cross_entropy: vocabulary"):
            linear_cross_entropy(hidden, kernel, targets, **wrong)


@pytest.mark.parametrize("tokens, columns, width", [(9216, 256000, 2048), (8192, 152064, 1536), (9216, 50272, None)])
def test_an_accelerators_blocks_are_whole_lanes_and_do_not_overlap_where_that_can_be(
    monkeypatch, tokens, columns, width
):
    monkeypatch.setattr("cptjax.kernels.head_cuts.device_in_use", lambda: ("tpu", "TPU v5p"))
    blocks = cut_into_blocks(tokens, columns, None)
    assert width is None or (blocks.columns, blocks.column_blocks) == (width, columns // width)
    assert blocks.columns * blocks.column_blocks >= columns and blocks.columns % 128 == 0
