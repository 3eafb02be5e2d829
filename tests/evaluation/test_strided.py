"""Overlapping windows: against packed rows where both see the same, against a loop over tokens where they do not."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_documents import FACTS

from cptjax.data.packing import BEST_FIT, pack
from cptjax.data.rows import RowReader, RowWriter
from cptjax.errors import ConfigurationError
from cptjax.evaluation.documents import document_losses
from cptjax.evaluation.score import score_sequences
from cptjax.evaluation.strided import strided_losses, whole_documents, windows
from cptjax.models.config import DecoderConfig
from cptjax.models.model import initialize
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

CONFIG = DecoderConfig(vocabulary=64, hidden=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=24)
LENGTH = 16
# The first and the third fill rows exactly, so that the second begins a row; the rest begin and end anywhere.
SIZES = (LENGTH + 1, 3 * LENGTH + 6, LENGTH - 4, 8, 2, 61, 5)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [np.concatenate([[1], rng.integers(3, 64, n - 2), [2]]) for n in SIZES]


def write(folder, texts, **facts):
    writer = RowWriter(str(folder), LENGTH, 64)
    for number, text in enumerate(texts):
        writer.document(f"d{number}", 4 * len(text), len(text) - 1, {})
    for row in pack(enumerate(texts), LENGTH):
        writer.row(row)
    writer.finish(**FACTS | facts)
    return RowReader(str(folder))


@pytest.fixture(scope="module")
def reader(texts, tmp_path_factory):
    return write(tmp_path_factory.mktemp("rows") / "validation", texts)


@pytest.fixture(scope="module")
def mesh():
    return build_mesh({"fsdp": 2}, jax.devices()[:2])


@pytest.fixture(scope="module")
def params(mesh):
    return initialize(CONFIG, 0, mesh)


def test_documents_come_back_whole(texts, reader):
    found = list(whole_documents(reader))
    assert [ordinal for ordinal, _, _ in found] == list(range(len(texts)))
    assert all(np.array_equal(tokens, text) for (_, tokens, _), text in zip(found, texts, strict=True))


def test_both_ways_agree_where_they_see_the_same(params, reader, mesh):
    """Documents within a row, and, in windows that do not overlap, one that begins a row."""
    with jax.set_mesh(mesh):
        packed = document_losses(params, CONFIG, Numerics(), reader, mesh)
    side_by_side = strided_losses(params, CONFIG, Numerics(), reader, mesh, LENGTH)
    overlapping = strided_losses(params, CONFIG, Numerics(), reader, mesh, 5)
    within = [0, 2, 3]
    for found in (side_by_side, overlapping):
        assert found.names == packed.names and np.array_equal(found.bytes, packed.bytes)
        assert found.tokens.tolist() == packed.tokens.tolist() == [n - 1 for n in SIZES]
        np.testing.assert_allclose(found.nats[within], packed.nats[within], rtol=1e-6)
    np.testing.assert_allclose(side_by_side.nats[1], packed.nats[1], rtol=1e-6)
    assert abs(overlapping.nats[1] - packed.nats[1]) > 1e-3  # the context does matter


def test_each_token_has_the_context_that_its_window_gives_it(texts, params, reader, mesh):
    found = strided_losses(params, CONFIG, Numerics(), reader, mesh, 5)
    asked, owners = [], []
    for number, text in enumerate(texts):
        for target in range(1, len(text)):
            beyond = max(0, target - LENGTH)  # the first window that reaches the target is the one that holds it
            asked.append(text[-(-beyond // 5) * 5 : target + 1].tolist())
            owners.append(number)
    expected = np.zeros(len(texts))
    with jax.set_mesh(mesh):
        for owner, scores in zip(owners, score_sequences(params, CONFIG, Numerics(), mesh, iter(asked)), strict=True):
            expected[owner] -= float(scores[-1])
    np.testing.assert_allclose(found.nats, expected, rtol=1e-5)


@given(st.integers(2, 60), st.integers(1, 12), st.data())
def test_every_target_counts_once_with_enough_before_it(size, length, data):
    stride = data.draw(st.integers(1, length))
    tokens, weights = np.arange(size), np.linspace(0.5, 1, size - 1, dtype=np.float32)
    seen = np.zeros(size - 1, np.float32)
    for window, fresh in windows(tokens, weights, length, stride):
        begin = int(window[0])
        assert len(window) == len(fresh) + 1 <= length + 1
        for offset in np.flatnonzero(fresh):
            context = offset + 1
            assert context >= min(begin + offset + 1, length - stride + 1)
        seen[begin : begin + len(fresh)] += fresh
    assert np.array_equal(seen, weights)


def test_what_cannot_be_windowed_is_refused(texts, params, reader, mesh, tmp_path):
    for stride in (0, LENGTH + 1):
        with pytest.raises(ConfigurationError, match=f"STRIDE = {stride}; windows are as long as rows, 16 tokens"):
            strided_losses(params, CONFIG, Numerics(), reader, mesh, stride)
    other = write(tmp_path / "rows", texts, packing=BEST_FIT)
    with pytest.raises(ConfigurationError, match="packed by 'best_fit'"):
        next(whole_documents(other))
