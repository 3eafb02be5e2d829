"""The hash of a batch: the same however it is cut over devices, another for any other batch."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.reporting.steps import hash_text
from cptjax.training.batch_hash import batch_hash

NAMES = ("inputs", "targets", "segment_ids", "positions")


def random_batch(seed=0, rows=8, length=16):
    generator = np.random.default_rng(seed)
    batch = {name: generator.integers(0, 50_000, (rows, length), np.int32) for name in NAMES}
    batch["weights"] = generator.random((rows, length), np.float32)
    return {**batch, "source": generator.integers(0, 3, rows, np.int32)}


def by_hand(batch):
    """The same number by plain Python integers, one value after another."""

    def mixed(x):
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
        return x ^ (x >> 16)

    rows, length = batch["inputs"].shape
    sums = []
    for lane in (0x9E3779B9, 0x85EBCA6B):
        total = 0
        for row in range(rows):
            for at in range(length):
                h = mixed(((row * length + at) * lane + 1) % 2**32)
                for name in (*NAMES, "weights"):
                    h = mixed(h ^ int(batch[name][row, at].view(np.uint32)))
                total += mixed(h ^ int(batch["source"][row]))
        sums.append(total % 2**32)
    return sums


def test_it_is_what_it_says():
    batch = random_batch()
    assert np.asarray(batch_hash(batch)).tolist() == by_hand(batch)
    assert hash_text(batch_hash(batch)) == "".join(f"{n:08x}" for n in by_hand(batch))


@given(st.sampled_from([*NAMES, "weights", "source"]), st.integers(0, 7), st.integers(0, 15), st.integers(0, 31))
@settings(max_examples=40, deadline=None)
def test_any_bit_changes_it(name, row, at, bit):
    batch = random_batch()
    other = {key: value.copy() for key, value in batch.items()}
    which = (row, at)[: other[name].ndim]
    other[name].view(np.uint32)[which] ^= np.uint32(1 << bit)
    assert (np.asarray(batch_hash(batch)) != np.asarray(batch_hash(other))).all()


def test_rows_in_another_order_are_another_batch():
    batch = random_batch()
    assert (batch_hash(batch) != batch_hash({name: value[::-1] for name, value in batch.items()})).all()


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (2, 4)])
def test_it_does_not_depend_on_how_the_batch_is_cut(shape):
    batch = random_batch()
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(shape), ("fsdp", "context"))
    placed = {
        name: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*("fsdp", "context")[: x.ndim])))
        for name, x in batch.items()
    }
    assert np.asarray(jax.jit(batch_hash)(placed)).tolist() == by_hand(batch)
