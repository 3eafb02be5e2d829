"""Rows of a table that a mesh cuts are the rows of the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.models.lookup import look_up
from cptjax.sharding.mesh import build_mesh
from cptjax.sharding.rules import sharding_of

ROWS, WIDTH, BATCH, LENGTH = 48, 16, 8, 6
TABLE = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
IDS = np.random.default_rng(1).integers(0, ROWS, (BATCH, LENGTH)).astype(np.int32)
IDS[0, 0], IDS[1, 1] = ROWS + 5, 0  # beyond the table: its last row
WEIGHTS = np.random.default_rng(2).normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)


def found(sizes, ids=IDS, dtype="float32"):
    """The rows, the gradient of their sum times WEIGHTS as a mesh computes them, and whether that lives where the table does."""
    mesh = build_mesh(sizes)
    table = jax.device_put(TABLE, sharding_of(mesh, ("vocabulary", "hidden"), TABLE.shape))
    ids = jax.device_put(ids, sharding_of(mesh, ("batch", "sequence"), ids.shape))

    def total(table):
        rows = look_up(table, ids, dtype)
        return jnp.sum(rows.astype(jnp.float32) * WEIGHTS[: ids.shape[0]]), rows

    with jax.set_mesh(mesh):
        gradient, rows = jax.jit(jax.grad(total, has_aux=True))(table)
    assert gradient.dtype == table.dtype and rows.dtype == dtype
    stays = gradient.sharding.is_equivalent_to(table.sharding, 2)
    return np.asarray(rows.astype(jnp.float32)), np.asarray(gradient), stays


@pytest.mark.parametrize(
    "sizes",
    [
        {"fsdp": 8},
        {"replica": 2, "fsdp": 4},
        {"fsdp": 4, "tensor": 2},
        {"fsdp": 2, "context": 2, "tensor": 2},
        {"replica": 2, "fsdp": 2, "context": 2},
        {"tensor": 8},  # the width is whole: XLA's own way
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_and_gradient_are_those_of_one_device(sizes, dtype):
    rows, gradient, stays = found(sizes, dtype=dtype)
    assert stays
    expected = np.zeros_like(TABLE)
    np.add.at(expected, np.minimum(IDS, ROWS - 1), WEIGHTS)
    kept = np.asarray(jnp.asarray(TABLE).astype(dtype).astype(jnp.float32))
    np.testing.assert_array_equal(rows, kept[np.minimum(IDS, ROWS - 1)])
    # In bfloat16 the cotangents are rounded, and each row adds up as many as there are of its token.
    np.testing.assert_allclose(gradient, expected, atol=1e-5 if dtype == "float32" else 0.06)


def test_a_batch_that_the_mesh_does_not_cut_is_looked_up_too():
    rows, gradient, _ = found({"fsdp": 8}, IDS[:3])
    np.testing.assert_array_equal(rows, TABLE[np.minimum(IDS[:3], ROWS - 1)])
    expected = np.zeros_like(TABLE)
    np.add.at(expected, np.minimum(IDS[:3], ROWS - 1), WEIGHTS[:3])
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
