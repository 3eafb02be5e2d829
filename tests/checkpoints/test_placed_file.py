"""Bytes at their places in a file, through the system's cache and past it."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.checkpoints import placed_file
from cptjax.checkpoints.placed_file import Memory, PlacedFile


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.touch()
    return str(path)


@given(
    sizes=st.lists(st.integers(0, 20000) | st.sampled_from([4095, 4096, 4097, 65536]), min_size=1, max_size=8),
    begin=st.integers(0, 5000),
    ways=st.lists(st.booleans(), min_size=8, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_pieces_written_either_way_in_any_order_by_threads_are_the_file(tmp_path_factory, sizes, begin, ways, order):
    path = tmp_path_factory.mktemp("placed") / "file"
    path.write_bytes(b"h" * begin)
    made = [np.random.default_rng(i).integers(0, 256, size, np.uint8) for i, size in enumerate(sizes)]
    places = np.cumsum([begin, *sizes])
    memory = Memory()

    def write(index):
        here = memory.of(sizes[index], int(places[index]))
        here[:] = made[index]
        file.write(here, int(places[index]), ways[index])

    asked = list(range(len(sizes)))
    order.shuffle(asked)
    with PlacedFile(str(path)) as file, ThreadPoolExecutor(3) as threads:
        list(threads.map(write, asked))
    assert path.read_bytes() == b"h" * begin + b"".join(each.tobytes() for each in made)


def test_memory_lies_in_its_page_as_its_place_in_the_file(path):
    memory = Memory()
    for size, place in ((10, 3), (100_000, 4096), (7, 123_457)):
        assert memory.of(size, place).ctypes.data % 4096 == place % 4096 and memory.of(size, place).size == size


def test_the_faster_way_is_taken_and_the_other_one_tried_now_and_then(path, monkeypatch):
    if not hasattr(os, "O_DIRECT"):
        pytest.skip("this system has no way past its cache")
    clock = iter(range(10**6))
    monkeypatch.setattr(placed_file.time, "perf_counter", lambda: next(clock))
    values = np.zeros(2 << 20, np.uint8)
    with PlacedFile(path) as file:
        if not file.past_cache():
            pytest.skip("this disk has no way past the cache")
        for past_cache, more in ((True, 9), (False, 0)):  # seconds
            pwrite = placed_file.os.pwrite

            def slow(*arguments, more=more, pwrite=pwrite):
                for _ in range(more):
                    next(clock)
                return pwrite(*arguments)

            monkeypatch.setattr(placed_file.os, "pwrite", slow)
            file.write(Memory().of(values.size), 0, past_cache)
            monkeypatch.setattr(placed_file.os, "pwrite", pwrite)
        taken = [file.past_cache() for _ in range(100)]
    assert 2 <= sum(taken) <= 4  # of a hundred, those that see whether it has become faster


def test_a_disk_that_refuses_pages_after_all_is_written_through_the_cache(path, monkeypatch):
    pwrite, refused = os.pwrite, []
    values = np.arange(50_000, dtype=np.uint8)
    with PlacedFile(path) as file:

        def refusing(descriptor, data, place):
            if descriptor == file._direct:
                refused.append(place)
                raise OSError(errno.EINVAL, "Invalid argument")
            return pwrite(descriptor, data, place)

        monkeypatch.setattr(placed_file.os, "pwrite", refusing)
        here = Memory().of(values.size, 5)
        here[:] = values
        file.write(here, 5, file.past_cache())
        assert not refused or not file.past_cache()
    with open(path, "rb") as written:
        assert written.read() == bytes(5) + values.tobytes()
