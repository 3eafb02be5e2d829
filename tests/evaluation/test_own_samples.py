"""The base's own samples: loss and divergence against numpy, position by position."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.checkpoints.source import open_checkpoint
from cptjax.evaluation import own_samples
from cptjax.evaluation.own_samples import Model, divergence, sample_losses, write_samples
from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

CONFIG = DecoderConfig(vocabulary=24, hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=24)
OTHER = DecoderConfig(vocabulary=24, hidden=32, layers=1, heads=2, kv_heads=2, head_dim=8, mlp=24, tied_embeddings=True)
START, EOS = 1, 2
LOGITS = jax.jit(logits, static_argnums=(1, 2))


def mesh_of(sizes):
    return build_mesh(sizes, jax.devices()[: math.prod(sizes.values())])


def model(mesh, config=CONFIG, seed=0, sharpness=20.0):
    """A random model with opinions of its own."""
    params = initialize(config, seed, mesh)
    name = "embedding.table" if config.tied_embeddings else "head.kernel"
    return Model({**params, name: params[name] * sharpness}, config, Numerics())


@pytest.fixture(scope="module")
def samples():
    mesh = mesh_of({"fsdp": 1})
    return write_samples(model(mesh), mesh, START, EOS, count=30, tokens=20, seed=0)


def distributions(each, sample):
    """log p at every position, float64 [positions, vocabulary], of one sample by itself."""
    inputs = jnp.asarray([sample[:-1] + [0] * (21 - len(sample))])
    scores = LOGITS(each.params, each.config, Numerics(), inputs, jnp.arange(20)[None], jnp.ones_like(inputs))
    scores = np.asarray(scores, np.float64)[0, : len(sample) - 1]
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def test_samples_begin_as_documents_do_and_end_with_eos_or_at_their_length(samples):
    lengths = {len(sample) for sample in samples}
    assert all(sample[0] == START for sample in samples) and max(lengths) == 21 and len(lengths) > 3
    for sample in samples:
        assert EOS not in sample[:-1] and (sample[-1] == EOS or len(sample) == 21)


@pytest.mark.parametrize("config", [CONFIG, OTHER])
@pytest.mark.parametrize("sizes", [{"fsdp": 1}, {"fsdp": 4, "tensor": 2}])
def test_loss_and_divergence_are_those_of_the_definition(samples, config, sizes, monkeypatch):
    monkeypatch.setattr(
        own_samples, "rows_at_once", lambda length, vocabulary, mesh: 8
    )  # four batches, the last not full
    mesh = mesh_of(sizes)
    base, other = model(mesh), model(mesh, config, seed=1)
    with jax.set_mesh(mesh):
        found = sample_losses(base, other, mesh, samples)
    alone = mesh_of({"fsdp": 1})
    base, other = model(alone), model(alone, config, seed=1)
    nats, kl = [], []
    for sample in samples:
        theirs, ours = distributions(base, sample), distributions(other, sample)
        nats.append(-sum(ours[i, token] for i, token in enumerate(sample[1:])))
        kl.append((np.exp(theirs) * (theirs - ours)).sum())
    assert found.tokens.tolist() == [len(sample) - 1 for sample in samples]
    np.testing.assert_allclose(found.nats, nats, rtol=1e-5)
    np.testing.assert_allclose(found.kl, kl, rtol=1e-4, atol=1e-5)
    assert found.kl.sum() / found.tokens.sum() > 0.05


def test_the_base_does_not_diverge_from_itself(samples):
    mesh = mesh_of({"fsdp": 1})
    base = model(mesh)
    found = sample_losses(base, base, mesh, samples)
    assert found.kl.tolist() == [0.0] * len(samples)
    again = Model({name: jnp.array(array) for name, array in base.params.items()}, CONFIG, Numerics())
    assert sample_losses(base, again, mesh, samples).kl.tolist() == [0.0] * len(
        samples
    )  # the same weights, loaded twice
    # The base finds its samples as probable as it drew them: loss and entropy differ by chance alone.
    entropy, squares = 0.0, 0.0
    for sample in samples:
        log_p = distributions(base, sample)
        entropy += -(np.exp(log_p) * log_p).sum()
        squares += ((np.exp(log_p) * log_p**2).sum(-1) - (np.exp(log_p) * log_p).sum(-1) ** 2).sum()
    assert abs(found.nats.sum() - entropy) < 4 * math.sqrt(squares)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 30))
def test_a_divergence_is_never_negative_and_that_of_numpy(seed, scale):
    rng = np.random.default_rng(seed)
    base, other = (rng.normal(0, scale, (3, 50)).astype(np.float32) for _ in range(2))
    found = np.asarray(divergence(base, other))
    theirs, ours = (x - np.logaddexp.reduce(x, -1, keepdims=True) for x in (base.astype(float), other.astype(float)))
    np.testing.assert_allclose(found, (np.exp(theirs) * (theirs - ours)).sum(-1), rtol=1e-4, atol=1e-5)
    assert (found >= 0).all() and np.asarray(divergence(base, base)).tolist() == [0.0] * 3
    nearly = base + np.float32(1e-6) * rng.normal(0, 1, base.shape).astype(np.float32)
    assert (np.asarray(divergence(base, nearly)) >= 0).all()


@pytest.mark.slow
def test_the_real_checkpoint_writes_what_it_knows(shared_data):
    """Own samples of stories260K were measured at 1.24 nats per token (shared/data/DATA.md)."""
    mesh = mesh_of({"fsdp": 1})
    opened = open_checkpoint(shared_data / "stories260K")
    base = Model(opened.load_parameters(mesh), opened.config, Numerics())
    found = sample_losses(base, base, mesh, write_samples(base, mesh, START, EOS, 128, 128, seed=0))
    assert found.nats.sum() / found.tokens.sum() == pytest.approx(1.24, abs=0.06)
