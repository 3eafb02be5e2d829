"""The plan of the TPU kernels against brute force: no pair of blocks is visited that need not be, and none is left out."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_definition import documents
from hypothesis import given, settings
from hypothesis import strategies as st

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention.block_sizes import TABLE, BlockSizes, block_sizes_for
from cptjax.kernels.attention.intervals import Intervals, seen, visible_keys
from cptjax.kernels.attention.plan import Work, fitted, plan_intervals

# Length and block sizes: one block; blocks that do not divide the row; several parts, of one and of several blocks; parts
# forward and none backward; more queries at a time forward than backward, and the other way round.
SHAPES = [
    (100, BlockSizes(128, 128, 128, 128, 128, 128)),
    (700, BlockSizes(128, 128, 1024, 256, 128, 1024)),
    (700, BlockSizes(256, 128, 256, 128, 256, 256)),
    (1100, BlockSizes(512, 256, 512, 128, 128, 384)),
    (1100, BlockSizes(128, 128, 384, 512, 512, 2048)),
    (1024, BlockSizes(128, 128, 128, 128, 512, 512)),
]


@functools.lru_cache(maxsize=64)
def planned(length, sizes):
    return jax.jit(lambda intervals: plan_intervals(intervals, length, sizes))


def visits(steps, blocks_of_a_part):
    """(row, block of queries, block of keys) of every visit, and of those without a mask, in the order of the grid."""
    every, unmasked = [], []
    for step in range(int(steps.count[0])):
        row, queries, part = map(int, steps.at.of(steps.place[step]))
        begin, clear, cloudy, end, _, _ = map(int, Work.of(steps.work[step]))
        assert 0 <= begin <= clear <= cloudy <= end <= blocks_of_a_part
        base = part * blocks_of_a_part
        every += [(row, queries, base + number) for number in range(begin, end)]
        unmasked += [(row, queries, base + number) for number in range(clear, cloudy)]
    return every, unmasked


def brute_force(pairs, queries, keys):
    """(row, block of queries, block of keys) with a pair of tokens that see each other; and with no other pair."""
    batch, length, columns = pairs.shape
    filled = np.pad(pairs, ((0, 0), (0, -length % queries), (0, -columns % keys)))
    blocks = filled.reshape(batch, filled.shape[1] // queries, queries, filled.shape[2] // keys, keys)
    return tuple({tuple(map(int, at)) for at in np.argwhere(fold(blocks, (2, 4)))} for fold in (np.any, np.all))


def check(intervals, keys, plan):
    """All that a plan promises."""
    intervals, plan = jax.device_get((intervals, plan))
    batch, length = intervals.first.shape
    sizes, pairs = plan.sizes, np.asarray(seen(intervals, np.arange(keys)))
    assert (plan.length, plan.keys) == (length, keys)

    # Rows are filled up with queries that see nothing.
    filled = plan.intervals.first.shape[1]
    assert filled % sizes.queries == filled % sizes.backward_queries == 0
    assert filled - length < max(sizes.queries, sizes.backward_queries)
    for kept, asked in zip(plan.intervals, intervals, strict=True):
        assert np.array_equal(kept[:, :length], asked)
    assert np.all(plan.intervals.first[:, length:] > plan.intervals.last[:, length:])

    every, unmasked = visits(plan.forward, sizes.resident_keys // sizes.keys)
    needed, whole = brute_force(pairs, sizes.queries, sizes.keys)
    assert len(every) == len(needed) and set(every) == needed
    assert set(unmasked) == whole
    # Each block of queries begins once, ends once, and is not left in between.
    order = places(plan.forward)
    assert [at for at, _ in itertools.groupby(order)] == list(np.ndindex(batch, filled // sizes.queries))
    check_edges(plan.forward, order)

    visited, seen_whole = [], []
    for part, steps in enumerate(plan.backward):
        every, unmasked = visits(steps, sizes.backward_resident_keys // sizes.backward_keys)
        visited, seen_whole = visited + every, seen_whole + unmasked
        count = int(steps.count[0])
        assert np.all(steps.at.of(steps.place[:count])[2] == part)
        # Each row begins once and ends once in each part, queries in order; with one part all of them have a step.
        order = places(steps)
        assert sorted(set(order)) == order
        rows = [row for row, _ in order]
        assert sorted(set(rows)) == list(range(batch))
        check_edges(steps, rows)
        if len(plan.backward) == 1:
            assert order == list(np.ndindex(batch, filled // sizes.backward_queries))
    needed, whole = brute_force(pairs, sizes.backward_queries, sizes.backward_keys)
    assert len(visited) == len(needed) and set(visited) == needed
    assert set(seen_whole) == whole
    assert len(plan.backward) * sizes.backward_resident_keys >= keys


def places(steps):
    count = int(steps.count[0])
    row, queries, _ = steps.at.of(steps.place[:count])
    return list(zip(row.tolist(), queries.tolist(), strict=True))


def check_edges(steps, groups):
    """first and last are 1 where a run of equal groups begins and ends, and nowhere else."""
    begins = [number == 0 or groups[number - 1] != group for number, group in enumerate(groups)]
    ends = [*begins[1:], True]
    work = Work.of(steps.work[: len(groups)])
    assert work.first.tolist() == begins and work.last.tolist() == ends


@settings(max_examples=40)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**31),
    most=st.sampled_from([1, 2, 8, 300]),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 50, 300]),
)
def test_what_is_visited_is_what_some_query_sees(shape, seed, most, causal, window):
    length, sizes = shape
    intervals = visible_keys(documents(np.random.default_rng(seed), 2, length, most), causal, window)
    check(intervals, length, planned(length, sizes)(intervals))


@settings(max_examples=20)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**31),
    shift=st.sampled_from([-2000, -600, -90, 0, 250, 600, 2000]),
    causal=st.booleans(),
)
def test_queries_that_see_nothing(shape, seed, shift, causal):
    """Keys that stand `shift` further on than their queries, as another device's do: some, or all, are seen by nobody."""
    length, sizes = shape
    rng = np.random.default_rng(seed)
    first, last = visible_keys(documents(rng, 2, length, 6), causal, None)
    blind = jnp.asarray(rng.integers(0, 4, (2, 1)) == 0)  # and a row, now and then, that sees nothing at all
    first, last = jnp.maximum(first - shift, 0), jnp.minimum(last - shift, length - 1)
    intervals = Intervals(first, jnp.where(blind, -1, last))
    check(intervals, length, planned(length, sizes)(intervals))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [("one document", "padding"), ("one for each token", "one document")])
def test_rows_at_the_ends_of_what_can_be(shape, rows):
    length, sizes = shape
    kinds = {"one document": np.ones(length), "padding": np.zeros(length), "one for each token": np.arange(length)}
    intervals = visible_keys(jnp.asarray(np.stack([kinds[row] for row in rows]), jnp.int32), True, None)
    check(intervals, length, planned(length, sizes)(intervals))


def test_sixteen_equal_documents_cost_a_sixteenth():
    """8192 tokens, blocks of 512: a causal row of one document visits 136 pairs of blocks, one of 16 documents 16."""
    sizes = BlockSizes(512, 512, 8192, 512, 512, 8192)
    for count, pairs in ((1, 136), (16, 16)):
        ids = jnp.arange(8192, dtype=jnp.int32)[None] // (8192 // count)
        plan = planned(8192, sizes)(visible_keys(ids, True, None))
        assert len(visits(plan.forward, 16)[0]) == len(visits(plan.backward[0], 16)[0]) == pairs
        assert int(plan.forward.count[0]) == 16


def test_documents_change_without_another_compilation():
    rng, plan = np.random.default_rng(0), jax.jit(lambda intervals: plan_intervals(intervals, 700, SHAPES[1][1]))
    for most in (1, 5, 200):
        plan(visible_keys(documents(rng, 2, 700, most), True, None))
    assert plan._cache_size() == 1


@pytest.mark.parametrize("length", [1, 128, 700, 4096, 32768, 131072])
@pytest.mark.parametrize(("generation", "head_dim"), TABLE)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_sizes_are_cut_to_the_row(generation, head_dim, itemsize, length):
    given = block_sizes_for(generation, head_dim, itemsize)
    sizes = fitted(given, length, length)
    for most, size in zip(vars(given).values(), vars(sizes).values(), strict=True):
        assert size <= most
    # Parts are of one size, and no part is all filling.
    for resident in (sizes.resident_keys, sizes.backward_resident_keys):
        assert resident * (-(-length // resident) - 1) < length


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((100, 128, 128, 128, 128, 128), "queries = 100; it must be a multiple of 128"),
        ((128, 128, 128, 128, 128, 0), "backward_resident_keys = 0"),
        ((128, 256, 384, 128, 128, 128), "resident_keys = 384 is no multiple of keys = 256"),
        ((128, 128, 16384, 128, 128, 128), "resident_keys = 16384 is more than 127 times keys = 128"),
    ],
)
def test_block_sizes_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(ConfigurationError, match=message):
        BlockSizes(*sizes)
