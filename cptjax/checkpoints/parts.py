"""Parts of a checkpoint's tensors, as our weights: what the devices of one process hold, and no more of the files than that."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from cptjax.checkpoints.safetensors import SafetensorsFile
from cptjax.checkpoints.tiles import fill
from cptjax.errors import CptjaxError
from cptjax.models.families.family import Correspondence

_ALIGNMENT = 64  # bytes; an array that begins at a multiple of it is read by a CPU device where it is

Index = tuple[slice, ...]  # of one layer's weight, what one device holds


def parts_of(sharding: NamedSharding, shape: tuple[int, ...]) -> tuple[list[Index], dict[jax.Device, int]]:
    """The parts that this process's devices hold, each once, and for every device which of them; replicas share one."""
    parts: dict[str, Index] = {}
    held = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        parts.setdefault(str(index), index)
        held[device] = list(parts).index(str(index))
    return list(parts.values()), held


def read_parts(
    file: SafetensorsFile, theirs: str, wanted: Mapping[str, tuple[Correspondence, Sequence[Index]]]
) -> dict[str, list[np.ndarray]]:
    """Parts of the weights of ours that stand in the tensor `theirs`, in float32.

    Raises:
        CptjaxError: a value of them is not finite.
    """
    tensor = _tensor(file, theirs, wanted)
    found: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    for name, (entry, indices) in wanted.items():
        ours = entry.to_ours(tensor)
        for index in indices:
            part = _aligned(ours[index].shape)
            if not fill(part, ours[index]):
                raise CptjaxError(f"{file.path}: tensor {theirs!r} holds values that are not finite (NaN or inf).")
            found[name].append(part)
    return found


def rows_of(entry: Correspondence, index: Index) -> tuple[int, int]:
    """The first row of their tensor in which a part of our weight stands, and the one after the last."""
    shape = entry.their_shape
    numbers = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    # A row's number grows along each of our axes, or stays: the first is in the first corner, the last in the last.
    part = entry.to_ours(np.broadcast_to(numbers, shape))[index]
    return (int(part[(0,) * part.ndim]), int(part[(-1,) * part.ndim]) + 1) if part.size else (0, 0)


def _tensor(
    file: SafetensorsFile, theirs: str, wanted: Mapping[str, tuple[Correspondence, Sequence[Index]]]
) -> np.ndarray:
    """The tensor with what is wanted in it: the mapped file, or, elsewhere, the rows in which it stands.

    Rows that are not read take no memory: nobody touches them.
    """
    if file.mapped:
        return file.read(theirs)
    rows = [rows_of(entry, index) for entry, indices in wanted.values() for index in indices]
    first, last = min(first for first, _ in rows), max(last for _, last in rows)
    tensor = np.empty(file.specs[theirs].shape, file.specs[theirs].dtype)
    tensor[first:last] = file.read(theirs, slice(first, last))
    return tensor


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An empty float32 array that begins at a multiple of `_ALIGNMENT`."""
    size = 4 * int(np.prod(shape))
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def one_ahead(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`map`, with a thread that is at work on the next item while the caller has the result of this one: two are held."""
    with ThreadPoolExecutor(1) as thread:
        under_way = None
        for item in items:
            following = thread.submit(function, item)
            if under_way is not None:
                yield under_way.result()
            under_way = following
        if under_way is not None:
            yield under_way.result()
