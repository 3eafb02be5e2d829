"""Continuations of one text, scored together: the same as each text scored whole, on any mesh, in bounded batches."""

import dataclasses
import math
from unittest import mock

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.evaluation.exams import scoring
from cptjax.evaluation.exams.asking import Ask
from cptjax.evaluation.exams.scoring import as_batch, batches_of, score_asks
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


def scored(asked, config=LLAMA, sizes=ONE):
    mesh = mesh_of(sizes)
    with jax.set_mesh(mesh), mock.patch.object(scoring, "SHORTEST_ROW", 64):
        found = dict(score_asks(opinionated(config, sizes), config, Numerics(), mesh, asked))
    assert sorted(found) == list(range(len(asked)))
    return [found[number] for number in range(len(asked))]


@pytest.mark.parametrize("config", [LLAMA, GPT], ids=["windows", "learned positions, soft caps"])
def test_scored_together_is_scored_one_by_one(config):
    asked = asks()
    expected = one_by_one(opinionated(config), config, asked)
    assert max(len(row) for _, part in batches_of(enumerate(asked), 1) for row in part) > 3  # rows are shared
    for mine, theirs in zip(scored(asked, config), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)
    assert np.ptp([value for each in expected for value in each]) > 10  # the model does tell texts apart


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{"replica": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "context": 2}])
def test_the_mesh_does_not_matter(sizes):
    asked = asks(8)
    for mine, theirs in zip(scored(asked, sizes=sizes), scored(asked), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.lists(st.integers(1, 90), min_size=2, max_size=6)), max_size=60),
    st.sampled_from([1, 4]),
    st.integers(2, 40),
)
def test_every_ask_is_in_one_row_that_holds_it_and_batches_are_bounded(sizes, ways, waiting):
    asked = [Ask([0] * size, [[0] * each for each in scored]) for size, scored in sizes]
    seen, partly = [], {}
    with mock.patch.object(scoring, "WAITING", waiting):
        for length, part in batches_of(enumerate(asked), ways):
            rows = scoring.rows_at_once(length, ways)
            assert len(part) <= rows and (rows * length <= scoring.BATCH_TOKENS or rows == ways)
            batch = as_batch(part, rows, length)  # it all fits
            assert batch["weights"].sum() == sum(len(each) for row in part for _, ask in row for each in ask.scored)
            assert (batch["runs"] > 0).sum() == sum(scoring._size(ask)[0] for row in part for _, ask in row)
            seen += [number for row in part for number, _ in row]
            partly[length] = partly.get(length, 0) + (len(part) < rows)
    assert sorted(seen) == list(range(len(asked)))
    assert len(asked) >= 32 or all(count <= 1 for count in partly.values())


def test_small_asks_share_rows():
    asked = [Ask([0] * 60, [[1]] * 4) for _ in range(2000)]
    batches = list(batches_of(enumerate(asked), 1))
    assert {length for length, _ in batches} == {256} and len(batches) == 2000 / (4 * 16) + 0.75  # four in a row of 256


def test_asks_are_taken_as_they_are_needed():
    """However many there are: a stream without an end gives its first answers."""

    def endless():
        while True:
            yield Ask([1, 2, 3], [[4], [5]])

    mesh = mesh_of(ONE)
    with jax.set_mesh(mesh), mock.patch.object(scoring, "SHORTEST_ROW", 64):
        found = score_asks(opinionated(LLAMA), LLAMA, Numerics(), mesh, endless())
        first = [next(found) for _ in range(300)]
    assert [number for number, _ in first] == list(range(300))
    np.testing.assert_allclose(first[0][1], first[299][1], rtol=1e-5)
