"""Parts of a checkpoint's tensors, as our weights: what the devices of one process hold, and no more of the files than that."""

import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cptjax.checkpoints.safetensors import SafetensorsFile
from cptjax.checkpoints.tiles import fill
from cptjax.errors import CptjaxError
from cptjax.models.families.family import Correspondence

_ALIGNMENT = 64  # bytes; an array that begins at a multiple of it is read by a CPU device where it is

Index = tuple[slice, ...]  # of one layer's weight, what one device holds


def of_one(sharding: NamedSharding, counts: int) -> NamedSharding:
    """Of a stack's sharding, that of one in it: the axes that count layers and experts come first and are never cut."""
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[counts:]))


def sharding_by_rows(entry: Correspondence, sharding: NamedSharding, whole: tuple[int, ...]) -> NamedSharding:
    """How one layer's weight is cut when it is read: by rows of their tensor alone where several processes share it.

    A part of every row would cost each process the whole tensor: a disk reads at least a page. Rows are read once by whoever
    has them, and the devices exchange what they need. Where rows (of heads: the heads) cannot be shared evenly, as it lives.
    """
    sharding = of_one(sharding, len(entry.spec.counts))
    if sharding.is_fully_addressable:
        return sharding
    return NamedSharding(sharding.mesh, spec_by_rows(entry, sharding.mesh.shape, sharding.spec, whole))


def spec_by_rows(
    entry: Correspondence, mesh: Mapping[str, int], spec: PartitionSpec, whole: tuple[int, ...]
) -> PartitionSpec:
    """All mesh axes of `spec` on the axis of ours that is the slowest in their tensor, or `spec` if they do not divide it.

    Args:
        whole: our shape, with rows of padding where there are some.
    """
    rows = entry.layout.order[0]
    cut = [() if names is None else (names,) if isinstance(names, str) else names for names in spec]
    others = [name for axis, names in enumerate(cut) if axis != rows for name in names]
    # In the mesh's order, its outermost axes first: the rows of one process then follow one another.
    mine = tuple(sorted((*(cut[rows] if rows < len(cut) else ()), *others), key=list(mesh).index))
    if not others or whole[rows] % math.prod(mesh[name] for name in mine):
        return spec
    return PartitionSpec(*(mine if axis == rows else None for axis in range(len(whole))))


def parts_of(sharding: NamedSharding, shape: tuple[int, ...]) -> tuple[list[Index], dict[jax.Device, int]]:
    """The parts that this process's devices hold, each once, and for every device which of them; replicas share one."""
    parts: dict[str, Index] = {}
    held = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        parts.setdefault(str(index), index)
        held[device] = list(parts).index(str(index))
    return list(parts.values()), held


def read_parts(
    file: SafetensorsFile,
    theirs: str,
    wanted: Mapping[str, tuple[Correspondence, Sequence[Index]]],
    into: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Fills `into` with parts of the weights of ours that stand in the tensor `theirs`, cast to float32.

    Args:
        into: for each part of `wanted` a float32 array of the part's shape; where that goes beyond the tensor (rows of
            padding) it is filled with zeros.

    Raises:
        CptjaxError: a value of them is not finite.
    """
    rows = [rows_of(entry, index) for entry, indices in wanted.values() for index in indices]
    tensor = file.around(theirs, _joined(rows))
    for name, (entry, indices) in wanted.items():
        ours = entry.to_ours(tensor)
        for index, part in zip(indices, into[name], strict=True):
            there = ours[index]
            if part.shape != there.shape:
                part[...] = 0
            if not fill(part[tuple(map(slice, there.shape))], there):
                raise CptjaxError(f"{file.path}: tensor {theirs!r} holds values that are not finite (NaN or inf).")


def shape_of(index: Index, whole: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what `index` cuts from an array of shape `whole`."""
    return tuple(len(range(*axis.indices(size))) for axis, size in zip(index, whole, strict=True))


def rows_of(entry: Correspondence, index: Index) -> tuple[int, int]:
    """The first row of their tensor in which a part of our weight stands, and the one after the last."""
    shape = entry.their_shape
    numbers = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    # A row's number grows along each of our axes, or stays: the first is in the first corner, the last in the last.
    part = entry.to_ours(np.broadcast_to(numbers, shape))[index]
    return (int(part[(0,) * part.ndim]), int(part[(-1,) * part.ndim]) + 1) if part.size else (0, 0)


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in ranges that do not touch and are not empty."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(each for each in ranges if each[0] < each[1]):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An empty float32 array that begins at a multiple of `_ALIGNMENT`: a CPU device takes it over as it is."""
    size = 4 * int(np.prod(shape))
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)
