"""Losses by document against sums made by hand, and their bootstrap against a plain loop."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.packing import pack
from cptjax.data.rows import RowReader, RowWriter
from cptjax.evaluation import documents
from cptjax.evaluation.bootstrap import paired_interval, ratio_interval, resampled_sums
from cptjax.evaluation.documents import BATCH_TOKENS, DocumentLosses, document_losses, in_common, rows_at_once
from cptjax.evaluation.loss import build_row_nats, evaluate_rows
from cptjax.evaluation.score import score_sequences
from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

CONFIG = DecoderConfig(vocabulary=64, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=48, maximum_length=64)
LENGTH = 16
FACTS = {
    "source": "law",
    "split": "validation",
    "files": (),
    "tokenizer": {"name": "/somewhere", "fingerprint": "f", "size": 64},
    "start": 1,
    "eos": 2,
    "settings": {},
}


def mesh_of(sizes):
    return build_mesh(sizes, jax.devices()[: math.prod(sizes.values())])


@pytest.fixture(autouse=True)
def small_batches(request, monkeypatch):
    """Two rows at a time: several batches, the last one not full."""
    if "rows" in request.fixturenames:
        monkeypatch.setattr(documents, "BATCH_TOKENS", 2 * LENGTH)


@pytest.fixture(scope="module")
def texts():
    """Documents shorter than a row, longer than one, and longer than three."""
    rng = np.random.default_rng(0)
    return [np.concatenate([[1], rng.integers(3, 64, n), [2]]) for n in (5, 11, 3, 14, 2, 60, 1, 17, 9, 30)]


@pytest.fixture(scope="module")
def rows(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "validation"
    writer = RowWriter(str(folder), LENGTH, 64)
    for number, text in enumerate(texts):
        writer.document(f"d{number}", 4 * len(text), len(text) - 1, {})
    for row in pack(enumerate(texts), LENGTH):
        writer.row(row)
    writer.finish(**FACTS)
    return str(folder)


def measured(rows, sizes):
    mesh = mesh_of(sizes)
    with jax.set_mesh(mesh):
        return document_losses(initialize(CONFIG, 0, mesh), CONFIG, Numerics(), RowReader(rows), mesh)


def test_each_document_has_the_nats_of_its_own_pieces(texts, rows):
    """Every piece that packing makes of a document, scored by itself."""
    mesh = mesh_of({"fsdp": 1})
    expected, params = np.zeros(len(texts)), initialize(CONFIG, 0, mesh)
    pieces, owners = [], []
    for row in pack(enumerate(texts), LENGTH):
        at = 0
        for ordinal, length in zip(row.ordinals, row.lengths, strict=True):
            pieces.append(row.stream[at : at + length + 1].tolist())
            owners.append(ordinal)
            at += length + 1
    assert len(pieces) > len(texts) + 5
    for ordinal, scores in zip(owners, score_sequences(params, CONFIG, Numerics(), mesh, iter(pieces)), strict=True):
        expected[ordinal] -= scores.astype(np.float64).sum()
    found = measured(rows, {"fsdp": 1})
    assert found.names == tuple(f"d{n}" for n in range(len(texts)))
    assert found.tokens.tolist() == [len(text) - 1 for text in texts]
    assert found.bytes.tolist() == [4 * len(text) for text in texts]
    np.testing.assert_allclose(found.nats, expected, rtol=1e-6)


def test_together_they_are_what_training_logs(rows):
    mesh, reader, found = mesh_of({"fsdp": 1}), RowReader(rows), measured(rows, {"fsdp": 1})
    score, params = build_row_nats(CONFIG, Numerics()), initialize(CONFIG, 0, mesh)
    for batch_rows in (1, 4):
        logged = evaluate_rows(score, params, reader.read, len(reader), reader.manifest.bytes, batch_rows, mesh)
        assert found.total.loss == pytest.approx(logged.loss, rel=1e-6)
        assert found.total.bits_per_byte == pytest.approx(logged.bits_per_byte, rel=1e-6)
        assert (found.total.tokens, found.total.bytes) == (logged.tokens, logged.bytes)


@pytest.mark.parametrize(
    "sizes", [pytest.param({"fsdp": 8}, marks=pytest.mark.slow), {"replica": 2, "fsdp": 2, "tensor": 2}]
)
def test_the_mesh_changes_nothing(rows, sizes):
    np.testing.assert_allclose(measured(rows, sizes).nats, measured(rows, {"fsdp": 1}).nats, rtol=1e-5)


def test_batches_fill_memory_to_a_bound_and_divide_among_devices():
    one, eight = mesh_of({"fsdp": 1}), mesh_of({"replica": 2, "fsdp": 4})
    assert rows_at_once(256, 2048, one) == BATCH_TOKENS // 256
    assert rows_at_once(256, 2**14, one) == 4  # 4 x 256 x 2**14 logits are the bound of 2**24
    assert rows_at_once(2**15, 2**17, one) == 1 and rows_at_once(2**15, 2**17, eight) == 8


def losses(names, nats, sizes=None):
    sizes = [10] * len(names) if sizes is None else sizes
    return DocumentLosses(tuple(names), np.array(nats, float), np.ones(len(names)), np.array(sizes))


def test_documents_in_common_are_found_by_name_and_bytes():
    one = losses(["a", "b", "b", "c", "d"], [1, 2, 3, 4, 5], [10, 10, 10, 10, 11])
    other = losses(["b", "c", "a", "b", "d", "b"], [20, 40, 10, 30, 50, 60], [10, 10, 10, 10, 12, 10])
    mine, theirs = in_common(one, other)
    assert mine.names == theirs.names == ("a", "b", "b", "c")
    assert mine.nats.tolist() == [1, 2, 3, 4] and theirs.nats.tolist() == [10, 20, 30, 40]
    assert [len(part) for part in in_common(one, losses(["z"], [1]))] == [0, 0]


def drawn(count, seed=0):
    """Nats that go with tokens, as they do in documents of very different lengths."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 400, count)
    return tokens * rng.normal(2.5, 0.3, count), tokens


def test_the_interval_is_that_of_a_plain_loop():
    nats, tokens = drawn(40)
    rng, ratios = np.random.default_rng(1), []
    for _ in range(20_000):
        which = rng.integers(0, 40, 40)
        ratios.append(sum(nats[i] for i in which) / sum(tokens[i] for i in which))
    expected = np.percentile(ratios, (2.5, 97.5))
    found = ratio_interval(nats, tokens, seed=0)
    assert found == ratio_interval(nats, tokens, seed=0) != ratio_interval(nats, tokens, seed=1)
    # An end of the interval of 2,000 resamples is known to about 0.06 of the ratio's deviation; four of these are allowed.
    assert found == pytest.approx(tuple(expected), abs=4 * 0.06 * np.std(ratios))


def test_each_resample_draws_as_many_documents_as_there_are(monkeypatch):
    sums = resampled_sums(np.stack([np.ones(7), np.arange(7.0)]), seed=0)
    assert sums.shape == (2000, 2) and set(sums[:, 0]) == {7.0}
    assert sums[:, 1].mean() == pytest.approx(21, abs=4 * math.sqrt(7 * 4 / 2000))  # the variance of 0..6 is 4
    assert sums[:, 1].var() == pytest.approx(28, rel=0.15)
    monkeypatch.setattr("cptjax.evaluation.bootstrap._DRAWN_AT_ONCE", 30)  # four resamples at a time: none lost
    assert resampled_sums(np.ones((1, 7)), 0).tolist() == [[7.0]] * 2000


@pytest.mark.slow
def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """95% intervals of 60 documents, 400 times: the percentile bootstrap is known to be a little narrow."""
    held = 0
    for seed in range(400):
        low, high = ratio_interval(*drawn(60, seed + 10), seed=seed)
        held += low <= 2.5 <= high
    assert 0.90 <= held / 400 <= 0.985


def test_pairs_are_drawn_together():
    nats, tokens = drawn(40)
    low, high = paired_interval(nats + 0.1 * tokens, tokens, nats, tokens, seed=0)
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)  # each document the same: nothing varies
    noisy = nats + tokens * np.random.default_rng(5).normal(0.1, 0.05, 40)
    low, high = paired_interval(noisy, tokens, nats, tokens, seed=0)
    alone = ratio_interval(noisy, tokens, seed=0)
    assert low < (noisy.sum() - nats.sum()) / tokens.sum() < high
    assert high - low < 0.5 * (alone[1] - alone[0])


def test_one_document_has_no_interval():
    assert ratio_interval(np.array([3.0]), np.array([2]), 0) == (None, None)


@given(st.lists(st.tuples(st.floats(0.1, 1e4), st.integers(1, 1000)), min_size=2, max_size=30), st.integers(0, 2**32))
def test_an_interval_lies_within_what_documents_give(pairs, seed):
    nats, tokens = (np.array(each) for each in zip(*pairs, strict=True))
    low, high = ratio_interval(nats, tokens, seed)
    ratios = nats / tokens
    assert ratios.min() * (1 - 1e-9) <= low <= high <= ratios.max() * (1 + 1e-9)
