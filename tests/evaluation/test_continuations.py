"""Continuations of contexts: against whole sequences scored one by one, on a mesh that cuts everything, shared or not."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.evaluation import continuations
from cptjax.evaluation.continuations import Request, score_continuations
from cptjax.evaluation.own_samples import Model
from cptjax.models import target_scores
from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

CONFIG = DecoderConfig(
    vocabulary=30, hidden=16, layers=2, heads=2, kv_heads=2, head_dim=8, mlp=24, padded_vocabulary=32
)
SIZES = [{"fsdp": 1}, {"fsdp": 2, "context": 2, "tensor": 2}]
READ = jax.jit(logits, static_argnums=(1, 2))


def model(sizes):
    mesh = build_mesh(sizes, jax.devices()[: math.prod(sizes.values())])
    params = initialize(CONFIG, 0, mesh)
    return Model({**params, "head.kernel": params["head.kernel"] * 20}, CONFIG, Numerics()), mesh


@functools.cache
def model_on_one_device():
    return model(SIZES[0])[0].params


def table(tokens):
    """log p of every token after each of `tokens`, by the forward pass that training uses."""
    padded = jnp.asarray([[*tokens, *[0] * (64 - len(tokens))]])
    scores = READ(model_on_one_device(), CONFIG, Numerics(), padded, jnp.arange(64)[None], jnp.ones_like(padded))
    return np.asarray(jax.nn.log_softmax(scores[0, : len(tokens), : CONFIG.vocabulary]))


@pytest.fixture(scope="module")
def requests():
    """Lengths of all kinds; letters behind one context, more of them than are computed together; the likeliest texts."""
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 12), (40, 3), (7, 9), (33, 31), (2, 2)]
    found = [Request(*(tuple(rng.integers(0, 30, n).tolist()) for n in each)) for each in sizes]
    context = tuple(rng.integers(0, 30, 11).tolist())
    found += [Request(context, (letter,)) for letter in range(20)]
    for length in (1, 5):
        text = list(context)
        for _ in range(length):
            text.append(int(table(text)[-1].argmax()))
        found.append(Request(context, tuple(text[len(context) :])))
    return found


@pytest.mark.parametrize("sizes", [SIZES[0], pytest.param(SIZES[1], marks=pytest.mark.slow)])
def test_answers_are_those_of_each_sequence_by_itself(sizes, requests, monkeypatch):
    monkeypatch.setattr(continuations, "BATCH_TOKENS", 128)  # a few rows at a time
    monkeypatch.setattr(target_scores, "_BLOCK_LOGITS", 512)
    given, mesh = model(sizes)
    with jax.set_mesh(mesh):
        answers = score_continuations(given, mesh, requests)
    greedy = 0
    for request, answer in zip(requests, answers, strict=True):
        scores = table([*request.context, *request.continuation][:-1])[len(request.context) - 1 :]
        expected = scores[np.arange(len(scores)), request.continuation].sum()
        assert answer.log_probability == pytest.approx(expected, abs=2e-4)
        assert answer.greedy == (scores.argmax(-1).tolist() == list(request.continuation))
        greedy += answer.greedy
    assert 3 <= greedy <= 6 and len({answer.log_probability for answer in answers[6:26]}) == 20


def test_what_differs_in_its_last_token_is_read_once(requests):
    rows = continuations._rows(requests)
    assert sorted(i for row in rows for i in row.requests) == list(range(len(requests)))
    letters = [row for row in rows if row.tokens == requests[6].context]
    assert [len(row.requests) for row in letters] == [16, 5]
