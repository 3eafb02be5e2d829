"""Held-out loss: exact sums whatever the batch, the mesh and the padding; bits per byte by PROTOCOL 9."""

import math

import jax
import numpy as np
import pytest

from cptjax.data.packing import pack
from cptjax.data.row_format import batch_of
from cptjax.evaluation.loss import build_row_nats, evaluate_rows
from cptjax.evaluation.score import score_sequences
from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

CONFIG = DecoderConfig(vocabulary=64, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=48, maximum_length=64)
LENGTH = 16


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [np.concatenate([[1], rng.integers(3, 64, n), [2]]) for n in (5, 11, 3, 14, 2, 40, 1)]


def evaluated(documents, sizes, batch_rows):
    rows = batch_of(list(pack(enumerate(documents), LENGTH)), LENGTH)
    mesh = build_mesh(sizes, jax.devices()[: math.prod(sizes.values())])
    params = initialize(CONFIG, 0, mesh)
    with jax.set_mesh(mesh):
        return evaluate_rows(
            build_row_nats(CONFIG, Numerics()),
            params,
            lambda indices: {name: array[indices] for name, array in rows.items()},
            len(rows["inputs"]),
            1000,
            batch_rows,
            mesh,
        )


def test_neither_batch_nor_mesh_changes_the_sum(documents):
    whole = evaluated(documents, {"fsdp": 1}, 16)
    assert whole.tokens == sum(len(document) - 1 for document in documents)
    for sizes, batch_rows in (({"fsdp": 1}, 1), ({"fsdp": 1}, 4), ({"fsdp": 8}, 8), ({"fsdp": 2, "tensor": 2}, 2)):
        found = evaluated(documents, sizes, batch_rows)
        assert found.tokens == whole.tokens
        assert found.nats == pytest.approx(whole.nats, rel=1e-6)


def test_packed_and_single_scoring_agree_where_no_document_is_cut(documents):
    """Documents shorter than a row, each alone in it: the sum is that of scoring each one by itself."""
    short = [document for document in documents if len(document) - 1 <= LENGTH]
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    scored = list(score_sequences(initialize(CONFIG, 0, mesh), CONFIG, Numerics(), mesh, iter(short)))
    alone = sum(evaluated([document], {"fsdp": 1}, 1).nats for document in short)
    assert alone == pytest.approx(-sum(float(s.astype(np.float64).sum()) for s in scored), rel=1e-6)


def test_loss_and_bits_per_byte_are_what_their_names_say(documents):
    found = evaluated(documents, {"fsdp": 1}, 4)
    assert found.loss == found.nats / found.tokens
    assert found.loss == pytest.approx(math.log(64), rel=0.1)  # random weights know nothing
    assert found.bits_per_byte == found.nats / math.log(2) / 1000


def test_a_score_does_not_depend_on_what_is_scored_beside_it(documents):
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    params = initialize(CONFIG, 0, mesh)
    together = list(score_sequences(params, CONFIG, Numerics(), mesh, iter(documents)))
    for document, scores in zip(documents, together, strict=True):
        (alone,) = score_sequences(params, CONFIG, Numerics(), mesh, iter([document]))
        assert scores.dtype == np.float32 and len(scores) == len(document) - 1
        assert np.array_equal(scores, alone)
    assert [len(s) for s in score_sequences(params, CONFIG, Numerics(), mesh, iter([[5], [], [1, 2]]))] == [0, 0, 1]
