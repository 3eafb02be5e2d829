"""Scores of single sequences, where the model's learned positions end between powers of two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.evaluation.score import score_sequences
from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

LONGEST = 50
CONFIG = DecoderConfig(
    67, 32, 2, 4, 4, 8, 48, positions="learned", norm="layer", gated_mlp=False, maximum_length=LONGEST
)


@pytest.fixture(scope="module")
def model():
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    return initialize(CONFIG, 0, mesh), mesh


def scored(model, sequences):
    params, mesh = model
    with jax.set_mesh(mesh):
        return list(score_sequences(params, CONFIG, Numerics(), mesh, iter(sequences)))


def test_sequences_up_to_the_last_learned_position_are_scored(model):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 67, n).tolist() for n in (LONGEST + 1, 40, 3)]
    for sequence, found in zip(sequences, scored(model, sequences), strict=True):
        inputs = jnp.asarray([sequence[:-1]])
        table = jax.nn.log_softmax(
            logits(model[0], CONFIG, Numerics(), inputs, jnp.arange(inputs.shape[1])[None], jnp.ones_like(inputs))
        )[0]
        expected = [float(table[i, token]) for i, token in enumerate(sequence[1:])]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_beyond_is_refused(model):
    with pytest.raises(ConfigurationError, match="learned positions for 50 and none beyond"):
        scored(model, [[1] * (LONGEST + 2)])
