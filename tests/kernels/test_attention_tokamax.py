"""tokamax behind our interface: the real package where it is installed (its plain-JAX form, on a CPU), else what is said."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_definition import definition, documents, off, sees

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import attention, choice, tokamax

ROWS, LENGTH, HEADS, KV_HEADS, HEAD_DIM = 2, 48, 4, 2, 16


def arrays(seed):
    rng = np.random.default_rng(seed)
    shapes = [(ROWS, LENGTH, heads, HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes], documents(rng, ROWS, LENGTH, 5)


@jax.jit
def results(query, key, value, of_out, segment_ids):
    """What is read, and the gradients, with a window and a cap."""

    def attend(*arrays):
        how = {"window": 20, "soft_cap": 3.0, "implementation": "tokamax"}
        return attention(*arrays, segment_ids=segment_ids, **how)

    out, gradients = jax.vjp(attend, query, key, value)
    return out, *gradients(of_out)


@pytest.mark.skipif(not tokamax.installed(), reason="tokamax is not installed; it asks for Python 3.12")
def test_tokamax_equals_the_definition_on_packed_rows():
    (query, key, value, of_out), segment_ids = arrays(0)
    found = results(query, key, value, of_out, segment_ids)
    seen = sees(segment_ids, True, 20)
    exact = definition(query, key, value, seen, soft_cap=3.0, scale=HEAD_DIM**-0.5, of_out=of_out)
    for one, wanted in zip(found, (exact.out, *exact[2:5]), strict=True):
        assert off(one, wanted) < 2e-5


@pytest.mark.skipif(not tokamax.installed(), reason="tokamax is not installed; it asks for Python 3.12")
def test_changing_one_document_changes_no_bit_of_another():
    numbers, _ = arrays(1)
    segment_ids = jnp.full((ROWS, LENGTH), 3).at[:, 11:30].set(1)
    others = (segment_ids != 1)[:, :, None, None]
    before, after = (
        results(*each, segment_ids) for each in (numbers, [jnp.where(others, 50 * x + 7, x) for x in numbers])
    )
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one[:, 11:30], other[:, 11:30]) and not np.array_equal(one[:, :11], other[:, :11])


def test_sinks_are_refused():
    (query, key, value, _), segment_ids = arrays(2)
    with pytest.raises(ConfigurationError, match="tokamax is offered without sinks"):
        attention(query, key, value, segment_ids=segment_ids, sinks=jnp.zeros(HEADS), implementation="tokamax")


@pytest.mark.skipif(tokamax.installed(), reason="tokamax is installed")
def test_without_the_package_it_is_refused_with_what_to_install():
    (query, key, value, _), segment_ids = arrays(3)
    with pytest.raises(ConfigurationError, match="pip install tokamax"):
        attention(query, key, value, segment_ids=segment_ids, implementation="tokamax")


def test_on_a_gpu_without_the_package_the_reference_is_taken_loudly(monkeypatch, caplog):
    monkeypatch.setattr(tokamax, "installed", lambda: False)
    monkeypatch.setattr(choice, "device_in_use", lambda: ("gpu", "a GPU that nobody has"))
    with caplog.at_level(logging.WARNING):
        assert choice.chosen("auto") == "reference"
    assert "slow" in caplog.text and "pip install tokamax" in caplog.text
