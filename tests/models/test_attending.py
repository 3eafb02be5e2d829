"""A decoder whose layers attend by the TPU kernels, interpreted, is the decoder of plain JAX, on one device and on several."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize, token_losses, weight_shardings
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

# Two windows, one of them reaching from block to block; heads that are filled up to 64.
CONFIG = DecoderConfig(
    vocabulary=64, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=48, windows=(None, 30), attention_soft_cap=5.0
)
LENGTH = 200


def packed_batch(rows):
    """Rows of documents of other lengths in each row, and padding."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.integers(1, LENGTH, (rows, 4)), axis=1)
    segments = (np.arange(LENGTH)[None, :, None] >= cuts[:, None]).sum(-1) + 1
    segments[segments == 5] = 0
    inputs, targets = rng.integers(0, CONFIG.vocabulary, (2, rows, LENGTH))
    positions = np.tile(np.arange(LENGTH), (rows, 1))
    arrays = {"inputs": inputs, "targets": targets, "segment_ids": segments, "positions": positions}
    return {name: jnp.asarray(array, jnp.int32) for name, array in arrays.items()}


def loss_and_gradients(config, numerics, sizes, rows):
    mesh = build_mesh(sizes, jax.devices()[: int(np.prod(list(sizes.values())))])
    params = jax.device_put(initialize(config, 0, build_mesh(None, jax.devices()[:1])), weight_shardings(config, mesh))

    def total(params, batch):
        return jnp.sum(jnp.sin(token_losses(params, config, numerics, batch)))

    with jax.set_mesh(mesh):
        batch = jax.device_put(packed_batch(rows), jax.NamedSharding(mesh, jax.P(("replica", "fsdp"))))
        return jax.device_get(jax.jit(jax.value_and_grad(total))(params, batch))


def check_equal(config, sizes, rows, **numerics):
    wanted, of_wanted = loss_and_gradients(config, Numerics(attention="reference"), {"fsdp": 1}, rows)
    with pltpu.force_tpu_interpret_mode(True):
        found, of_found = loss_and_gradients(config, Numerics(attention="pallas_tpu", **numerics), sizes, rows)
    assert found == pytest.approx(wanted, rel=1e-5)
    for name, gradient in of_wanted.items():
        assert np.linalg.norm(of_found[name] - gradient) < 2e-5 * np.linalg.norm(gradient), name


@pytest.mark.parametrize("remat", ["none", "attention_output"])
def test_on_one_device(remat):
    check_equal(CONFIG, {"fsdp": 1}, 2, remat=remat)


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_on_a_mesh(kv_heads):
    """Each device has its rows and its heads; one head of keys for two devices is given to both."""
    config = dataclasses.replace(CONFIG, kv_heads=kv_heads)
    check_equal(config, {"replica": 2, "fsdp": 2, "tensor": 2}, 4)
