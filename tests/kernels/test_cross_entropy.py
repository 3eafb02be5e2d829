"""Cross-entropy against the log-softmax it stands for."""

import jax
import jax.numpy as jnp
import numpy as np

from cptjax.kernels.cross_entropy import cross_entropy


def plain(logits, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]


def test_values_and_gradients_are_those_of_log_softmax():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(5 * rng.normal(size=(3, 4, 11)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 11, (3, 4)))
    weights = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    np.testing.assert_allclose(cross_entropy(logits, targets), plain(logits, targets), rtol=2e-6)
    ours, theirs = (
        jax.grad(lambda x, loss=loss: jnp.sum(weights * loss(x, targets)))(logits) for loss in (cross_entropy, plain)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)


def test_its_gradient_needs_no_scatter_and_no_gather():
    jaxpr = jax.make_jaxpr(jax.grad(lambda x: cross_entropy(x, jnp.zeros((2, 3), jnp.int32)).sum()))(
        jnp.ones((2, 3, 5))
    )
    assert "scatter" not in str(jaxpr) and "gather" not in str(jaxpr)


def test_large_logits_stay_finite():
    logits = jnp.asarray([[1e4, -1e4, 0.0]])
    assert cross_entropy(logits, jnp.asarray([0]))[0] == 0.0
    assert cross_entropy(logits, jnp.asarray([1]))[0] == 2e4
    assert np.isfinite(jax.grad(lambda x: cross_entropy(x, jnp.asarray([1])).sum())(logits)).all()
