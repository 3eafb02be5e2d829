"""Counted FLOPs against the products that the program really contains."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from test_model import products

from cptjax.models.config import DecoderConfig
from cptjax.models.flops import flops_per_token, mean_visible
from cptjax.models.model import abstract_weights, logits
from cptjax.models.numerics import Numerics

CONFIG = DecoderConfig(vocabulary=64, hidden=32, layers=4, heads=4, kv_heads=2, head_dim=12, mlp=48, windows=(None, 5))


NARROW = dataclasses.replace(CONFIG, gated_mlp=False, embedding_width=20, query_key_norm="head")
MIXTURE = dataclasses.replace(CONFIG, experts=6, experts_per_token=2, expert_mlp=20, dense_layers=(False, True))


@pytest.mark.parametrize("config, scan_layers", [(CONFIG, True), (CONFIG, False), (NARROW, True), (MIXTURE, True)])
def test_the_program_multiplies_what_is_counted(config, scan_layers):
    """Up to attention, where the reference computes all pairs and the count takes those that see each other."""
    length = 20
    params = {name: jax.ShapeDtypeStruct(spec.shape, spec.dtype) for name, spec in abstract_weights(config).items()}
    ids = jnp.zeros((1, length), jnp.int32)
    jaxpr = jax.make_jaxpr(lambda params: logits(params, config, Numerics(scan_layers=scan_layers), ids, ids, ids))(
        params
    )
    total = 0
    for equation, times in products(jaxpr.jaxpr):
        (contracted, _), _ = equation.params["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        total += times * 2 * inner * math.prod(equation.outvars[0].aval.shape)
    for equation, times in products(jaxpr.jaxpr, "ragged_dot_general"):  # each row meets one expert's matrix
        (rows, inner), (_, _, outer) = (variable.aval.shape for variable in equation.invars[:2])
        total += times * 2 * rows * inner * outer
    counted = flops_per_token(config, length)
    all_pairs = config.layers * 4 * config.heads * config.head_dim * length
    assert total / length == counted.forward - counted.attention + all_pairs
    assert counted.training == 3 * counted.forward


@pytest.mark.parametrize("length, window", [(1, None), (7, None), (7, 1), (7, 3), (7, 7), (7, 50)])
def test_mean_visible_counts_pairs(length, window):
    pairs = sum(j <= i and (window is None or i - j < window) for i in range(length) for j in range(length))
    assert mean_visible(length, window) == pytest.approx(pairs / length)


def test_attention_is_halved_when_causal():
    full = 4 * CONFIG.heads * CONFIG.head_dim * 4096 * CONFIG.layers
    config = DecoderConfig(**CONFIG.to_json() | {"windows": (None,)})
    assert flops_per_token(config, 4096).attention == pytest.approx(full / 2, rel=1e-3)
