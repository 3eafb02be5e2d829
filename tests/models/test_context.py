"""A decoder whose rows are cut over `context`: the loss and gradients of one whose rows are whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.context import check_pieces
from cptjax.models.model import initialize, token_losses
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh
from cptjax.sharding.rules import sharding_of

CONFIG = DecoderConfig(vocabulary=64, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=64, windows=(None, 12))


def losses_and_gradients(sizes, length=64, remat="none", attention="auto"):
    rng = np.random.default_rng(0)
    devices = int(np.prod(list(sizes.values())))
    mesh = build_mesh(sizes, jax.devices()[:devices])
    shape = (4, length)
    rows = {
        "inputs": rng.integers(0, 64, shape),
        "targets": rng.integers(0, 64, shape),
        "positions": np.tile(np.arange(length), (4, 1)),
        "segment_ids": np.sort(rng.integers(0, 4, shape), axis=1),
    }
    weights = jnp.asarray(rng.normal(size=shape), jnp.float32)
    with jax.set_mesh(mesh):
        cut = sharding_of(mesh, ("batch", "sequence"), shape)
        batch = {name: jax.device_put(jnp.asarray(values, jnp.int32), cut) for name, values in rows.items()}

        @jax.jit
        def found(params, batch):
            def weighed(params):
                numerics = Numerics(remat=remat, attention=attention)
                losses = token_losses(params, CONFIG, numerics, batch)
                return jnp.sum(weights * losses), losses

            gradients, losses = jax.grad(weighed, has_aux=True)(params)
            return losses, gradients

        losses, gradients = found(initialize(CONFIG, 0, mesh), batch)
        return jax.tree.map(np.asarray, {"losses": losses, **gradients})


@pytest.fixture(scope="module")
def whole():
    return losses_and_gradients({})


@pytest.mark.parametrize(
    ("sizes", "remat"),
    [({"context": 2}, "none"), ({"fsdp": 2, "context": 4}, "full"), ({"context": 2, "tensor": 4}, "attention_output")],
    ids=str,
)
def test_loss_and_gradients_are_those_of_whole_rows(whole, sizes, remat):
    cut = losses_and_gradients(sizes, remat=remat)
    for name, expected in whole.items():
        assert np.linalg.norm(cut[name] - expected) <= 2e-5 * np.linalg.norm(expected), name


def test_our_kernels_around_the_ring(whole):
    """Pallas's general interpreter: the TPU's does not return under `shard_map` on several CPU devices."""
    with pltpu.force_tpu_interpret_mode(True):
        cut = losses_and_gradients({"context": 2}, attention="pallas_tpu", remat="attention_output")
    for name, expected in whole.items():
        assert np.linalg.norm(cut[name] - expected) <= 2e-5 * np.linalg.norm(expected), name


def test_rows_that_do_not_fall_into_pieces_are_refused_in_training_and_left_whole_in_scoring():
    with pytest.raises(ConfigurationError, match="(?s)8 equal pieces.*SEQUENCE_LENGTH"):
        check_pieces(60, 4)
    whole, cut = losses_and_gradients({}, length=60), losses_and_gradients({"context": 4}, length=60)
    assert np.linalg.norm(cut["losses"] - whole["losses"]) <= 2e-5 * np.linalg.norm(whole["losses"])


def test_an_implementation_without_log_sums_is_refused():
    with pytest.raises(ConfigurationError, match="splash cannot put together"):
        losses_and_gradients({"context": 2}, attention="splash")
