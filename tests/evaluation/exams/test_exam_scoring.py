"""Continuations of one text, scored together: the same as each text scored whole, on any mesh, in bounded batches."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from cptjax.evaluation.exams import scoring
from cptjax.evaluation.exams.asking import Ask
from cptjax.evaluation.exams.scoring import score_asks, shape_of
from cptjax.evaluation.score import score_sequences
from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

LLAMA = DecoderConfig(
    vocabulary=24, hidden=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=24, maximum_length=64, windows=(None, 5)
)
GPT = dataclasses.replace(
    LLAMA,
    windows=(None,),
    positions="learned",
    norm="layer",
    gated_mlp=False,
    attention_soft_cap=3.0,
    logit_soft_cap=5.0,
    tied_embeddings=True,
)
ONE = {"fsdp": 1}


def mesh_of(sizes):
    return build_mesh(sizes, jax.devices()[: math.prod(sizes.values())])


def asks(count=12):
    """Of many sizes: from one token before a letter to texts that a window does not reach across."""
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        lengths = [1, 1, 1] if number % 4 == 3 else random.integers(1, 6, random.integers(2, 5))
        given = random.integers(0, 24, random.integers(1, 17)).tolist()
        found.append(Ask(given, [random.integers(0, 24, length).tolist() for length in lengths]))
    return found


def one_by_one(params, config, asked):
    """Each text as a whole, by the scoring that the job `score` uses."""
    mesh = mesh_of(ONE)
    whole = [[*ask.given, *scored] for ask in asked for scored in ask.scored]
    with jax.set_mesh(mesh):
        found = iter(list(score_sequences(params, config, Numerics(), mesh, iter(whole))))
    return [[-next(found)[len(ask.given) - 1 :].sum(dtype=np.float64) for _ in ask.scored] for ask in asked]


def opinionated(config, sizes=ONE):
    params = initialize(config, 0, mesh_of(sizes))
    name = "embedding.table" if config.tied_embeddings else "head.kernel"
    return {**params, name: params[name] * 15}


def scored(asked, config=LLAMA, sizes=ONE, numerics=Numerics()):
    mesh = mesh_of(sizes)
    with jax.set_mesh(mesh):
        found = dict(score_asks(opinionated(config, sizes), config, numerics, mesh, asked))
    assert sorted(found) == list(range(len(asked)))
    return [found[number] for number in range(len(asked))]


@pytest.mark.parametrize("config", [LLAMA, GPT], ids=["windows", "learned positions, soft caps"])
def test_scored_together_is_scored_one_by_one(config):
    asked = asks()
    expected = one_by_one(opinionated(config), config, asked)
    for mine, theirs in zip(scored(asked, config), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)
    assert np.ptp([value for each in expected for value in each]) > 10  # the model does tell texts apart


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"replica": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "context": 2}])
def test_the_mesh_does_not_matter(sizes):
    asked = asks(8)
    for mine, theirs in zip(scored(asked, sizes=sizes), scored(asked), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


def test_batches_are_bounded_and_what_is_left_fills_larger_ones(monkeypatch):
    expected = scored(asks(16))
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 64)
    sizes, seen = [], []
    build = scoring.as_batch

    def watched(part, rows, shape):
        sizes.append((rows, shape))
        seen.append(len(part))
        return build(part, rows, shape)

    monkeypatch.setattr(scoring, "as_batch", watched)
    asked = asks(16)
    found = scored(asked)
    assert all(rows * (shape[0] + shape[1]) <= 64 for rows, shape in sizes) and sum(seen) == 16
    assert {shape for _, shape in sizes} <= {shape_of(ask) for ask in asked}
    assert sum(rows > used for (rows, _), used in zip(sizes, seen, strict=True)) <= 1  # the last that is not full
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


def test_asks_are_taken_as_they_are_needed():
    """However many there are: a stream without an end gives its first answers."""

    def endless():
        while True:
            yield Ask([1, 2, 3], [[4], [5]])

    mesh = mesh_of(ONE)
    with jax.set_mesh(mesh):
        found = score_asks(opinionated(LLAMA), LLAMA, Numerics(), mesh, endless())
        first = [next(found) for _ in range(300)]
    assert [number for number, _ in first] == list(range(300)) and np.array_equal(first[0][1], first[299][1])


def test_letters_are_read_with_the_text_alone():
    asked = Ask(list(range(20)), [[1], [2], [3], [4]])
    assert shape_of(asked) == (24, 0, 4)
    assert shape_of(Ask([1] * 33, [[1, 2], [3, 4, 5]])) == (48, 16, 4)
