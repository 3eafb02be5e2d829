"""Rows of a step, on the devices that need them: each process reads only its own rows, one step ahead of the training."""

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh

from cptjax.sharding.rules import sharding_of

Rows = dict[str, np.ndarray]
ReadRows = Callable[[slice], Rows]


def place_rows(read: ReadRows, rows: int, mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch as arrays sharded over `replica` and `fsdp` by rows (and over `context` by positions).

    Args:
        read: rows `slice.start` to `slice.stop` of the batch, as arrays with rows first; called once, for the rows that
            this process's devices hold.
        rows: rows in the global batch.
    """
    by_row = sharding_of(mesh, ("batch",), (rows,))
    spans = [index[0].indices(rows)[:2] for index in by_row.addressable_devices_indices_map((rows,)).values()]
    first, last = min(start for start, _ in spans), max(stop for _, stop in spans)

    def place(array: np.ndarray) -> jax.Array:
        shape = (rows, *array.shape[1:])
        sharding = sharding_of(mesh, ("batch", "sequence")[: len(shape)], shape)

        def part(index):
            start, stop, _ = index[0].indices(rows)
            return array[(slice(start - first, stop - first), *index[1:])]

        return jax.make_array_from_callback(shape, sharding, part)

    return {name: place(array) for name, array in read(slice(first, last)).items()}


def batches(
    read_step: Callable[[int, slice], Rows], steps: Sequence[int], rows: int, mesh: Mesh, ahead: int = 2
) -> Iterator[tuple[int, dict[str, jax.Array]]]:
    """(step, batch) for each of `steps`, in order, read by a thread that stays `ahead` steps in front.

    The batch of a step is a function of the step (DESIGN.md 3), so reading ahead or stopping early leaves no state behind.
    """

    def load(step: int):
        return place_rows(lambda part: read_step(step, part), rows, mesh)

    with ThreadPoolExecutor(1, thread_name_prefix="rows") as reader:
        waiting = collections.deque(reader.submit(load, step) for step in steps[:ahead])
        for number, step in enumerate(steps):
            if number + ahead < len(steps):
                waiting.append(reader.submit(load, steps[number + ahead]))
            yield step, waiting.popleft().result()
