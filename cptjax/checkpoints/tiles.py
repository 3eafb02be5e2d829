"""Arrays copied from one order of axes into another at the speed of memory, cast and checked on the way.

numpy copies a transposed matrix number by number, each from another cache line, and all lines are gone when the next row
comes. Here a piece is as wide as a cache line of what is written, and long: some six times as fast.
"""

from collections.abc import Iterator

import numpy as np

_LINE = 16  # numbers of 4 bytes in a cache line
_RUN = 1024  # numbers in the source's own direction, for each of which a line is being written
_BLOCK = 1 << 17  # numbers that are cast and checked while the cache has them


def fill(destination: np.ndarray, source: np.ndarray) -> bool:
    """`destination[...] = source`, cast, whatever the order of the source's axes; whether all values are finite there."""
    if not source.size:
        return True
    # Size and the two arrays' steps; neighbouring axes that both step through as through one are made one.
    axes: list[tuple[int, int, int]] = []
    for size, one, other in zip(source.shape, destination.strides, source.strides, strict=True):
        if axes and axes[-1][1:] == (size * one, size * other):
            axes[-1] = (axes[-1][0] * size, one, other)
        elif size != 1:
            axes.append((size, one, other))
    shape, ours, theirs = zip(*axes, strict=True) if axes else ((1,), (destination.itemsize,), (source.itemsize,))
    with np.errstate(over="ignore"):  # what a cast makes infinite is found as such
        return _fill(
            np.lib.stride_tricks.as_strided(destination, shape, ours),
            np.lib.stride_tricks.as_strided(source, shape, theirs, writeable=False),
        )


def in_order(tensor: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """The tensor's values in C order as `dtype`, in contiguous blocks of rows; each is good until the next but one."""
    if tensor.flags.c_contiguous:
        flat = tensor.reshape(-1)
        blocks = (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))
    else:
        blocks = _turned_blocks(tensor)
    for block in blocks:
        with np.errstate(over="ignore"):
            yield block.astype(dtype, copy=False)


def finite(array: np.ndarray) -> bool:
    """Whether an array, small enough to be tested at once, holds no NaN and no infinity."""
    # Half precision is widened first: numpy tests it number by number.
    return bool(np.isfinite(array.astype(np.float32) if array.dtype.itemsize == 2 else array).all())


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two matrices of one shape are the same: their dtype, NaN and signed zeros too."""
    if first.dtype != second.dtype:
        return False
    rows = max(1, _BLOCK // max(1, first[:1].size))
    starts = range(0, len(first), rows)
    return all(first[start : start + rows].tobytes() == second[start : start + rows].tobytes() for start in starts)


def _turned_blocks(tensor: np.ndarray) -> Iterator[np.ndarray]:
    buffers = [np.empty((min(len(tensor), _RUN), *tensor.shape[1:]), tensor.dtype) for _ in range(2)]
    for number, start in enumerate(range(0, len(tensor), _RUN)):
        block = buffers[number % 2][: min(_RUN, len(tensor) - start)]
        fill(block, tensor[start : start + _RUN])
        yield block


def _fill(destination: np.ndarray, source: np.ndarray) -> bool:
    fastest, last = int(np.argmin(source.strides)), source.ndim - 1
    if source.ndim > 2:
        # One by one along an axis in which neither of them is contiguous.
        axis = min({*range(last)} - {fastest}, key=lambda each: source.shape[each])
        pairs = zip(np.moveaxis(destination, axis, 0), np.moveaxis(source, axis, 0), strict=True)
        return all(_fill(*pair) for pair in pairs)
    return _turn(destination, source) if fastest != last else _straight(destination, source)


def _straight(destination: np.ndarray, source: np.ndarray) -> bool:
    rows = max(1, _BLOCK // source[0].size)
    for start in range(0, len(source), rows):
        destination[start : start + rows] = source[start : start + rows]
        if not finite(destination[start : start + rows]):
            return False
    return True


def _turn(destination: np.ndarray, source: np.ndarray) -> bool:
    """A matrix whose columns are contiguous, `_LINE` of them at a time, in the order in which they lie in memory."""
    for start in range(0, source.shape[1], _LINE):
        columns = source.T[start : start + _LINE].astype(destination.dtype, copy=False)
        if not finite(columns):
            return False
        for run in range(0, len(source), _RUN):
            destination[run : run + _RUN, start : start + _LINE] = columns[:, run : run + _RUN].T
    return True
