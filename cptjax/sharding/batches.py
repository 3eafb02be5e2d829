"""Rows of a step, on the devices that need them: each process reads only its own rows, one step ahead of the training."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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


def abstract_rows(
    by_position: Mapping[str, Any], by_row: Sequence[str], rows: int, length: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """What `place_rows` gives of such a batch, with no memory behind it.

    Several processes have `stop` beside it (processes.asked_by).

    Args:
        by_position: dtypes of what has a value for each position of a row; by_row: names of the int32 that each row has one of.
    """

    def like(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        axes = ("batch", "sequence")[: len(shape)]
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding_of(mesh, axes, shape))

    batch = {name: like(dtype, rows, length) for name, dtype in by_position.items()}
    batch |= {name: like(np.int32, rows) for name in by_row}
    if len({device.process_index for device in mesh.devices.flat}) > 1:
        everyone = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        batch["stop"] = jax.ShapeDtypeStruct((mesh.size,), np.int32, sharding=everyone)
    return batch


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
