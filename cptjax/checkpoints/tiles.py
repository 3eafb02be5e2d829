"""Arrays copied from one order of axes into another at the speed of memory, cast and checked on the way.

numpy copies a transposed matrix number by number, each from another cache line, and all lines are gone when the next row
comes. Here a tile of it is cast into memory that the caches keep, and turned from there. It is wide along what is contiguous in
memory: a cast of 256 numbers at a time takes twice as long as one of 1024, for what it costs to begin. Of the tiles that were
measured this one is the fastest where the copy is cast and written to a file.
"""

from collections.abc import Iterator

import ml_dtypes
import numpy as np

_WIDE = 1024  # numbers of a tile along what is contiguous in the source
_HIGH = 128  # and along what is contiguous in the destination
_APART = 16  # numbers between a tile's rows: a power of two would have them all in the same few lines of the cache
_BLOCK = 1 << 17  # numbers that are cast and checked while the cache has them
_PIECE = 1 << 19  # numbers that are put in order, checked and written at a time
_TURNED = 1 << 23  # numbers of a transposed piece, at most, for its rows to be as many as a tile is wide
_FEWEST = 32  # rows of a transposed piece: of what is contiguous in memory at least so much is read at a time
# Of halves of a word: the bits of infinity. NaN's are greater, all others' smaller. numpy tests these dtypes number by number.
_INFINITE = {np.dtype(np.float16): 0x7C00, np.dtype(ml_dtypes.bfloat16): 0x7F80}


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


def pieces(tensor: np.ndarray) -> Iterator[np.ndarray]:
    """Views whose values, each in C order, follow one another in the tensor's C order; none where it is empty."""
    if tensor.flags.c_contiguous:
        flat = tensor.reshape(-1)
        yield from (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
    elif tensor.ndim > 2 and _FEWEST * tensor[0].size > _PIECE:
        for part in tensor:  # one expert of many
            yield from pieces(part)
    else:
        row = tensor[0].size
        rows = max(_FEWEST, _PIECE // row, min(_WIDE, _TURNED // row))
        yield from (tensor[start : start + rows] for start in range(0, len(tensor), rows))


def in_order(piece: np.ndarray, dtype: np.dtype, memory: np.ndarray) -> tuple[np.ndarray, bool]:
    """Its values in C order as `dtype`, and whether all are finite there.

    Args:
        memory: bytes, as many as the values take, that the answer may lie in; the piece itself where nothing has to be done.
    """
    if piece.dtype == dtype and piece.flags.c_contiguous:
        return piece, finite(piece)
    values = memory[: piece.size * dtype.itemsize].view(dtype).reshape(piece.shape)
    return values, fill(values, piece)


def finite(array: np.ndarray) -> bool:
    """Whether an array, small enough to be tested at once, holds no NaN and no infinity."""
    infinite = _INFINITE.get(array.dtype)
    if infinite is None or not array.size:
        return bool(np.isfinite(array).all())
    return int((array.view(np.uint16) & 0x7FFF).max()) < infinite


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two matrices of one shape are the same: their dtype, NaN and signed zeros too."""
    if first.dtype != second.dtype:
        return False
    rows = max(1, _BLOCK // max(1, first[:1].size))
    starts = range(0, len(first), rows)
    return all(first[start : start + rows].tobytes() == second[start : start + rows].tobytes() for start in starts)


def _fill(destination: np.ndarray, source: np.ndarray) -> bool:
    fastest, last = int(np.argmin(source.strides)), source.ndim - 1
    if source.ndim > 2:
        # One by one along an axis in which neither of them is contiguous.
        axis = min({*range(last)} - {fastest}, key=lambda each: source.shape[each])
        pairs = zip(np.moveaxis(destination, axis, 0), np.moveaxis(source, axis, 0), strict=True)
        return all([_fill(*pair) for pair in pairs])
    return _turn(destination, source) if fastest != last else _straight(destination, source)


def _straight(destination: np.ndarray, source: np.ndarray) -> bool:
    rows, whole = max(1, _BLOCK // source[0].size), True
    for start in range(0, len(source), rows):
        destination[start : start + rows] = source[start : start + rows]
        whole &= finite(destination[start : start + rows])
    return whole


def _turn(destination: np.ndarray, source: np.ndarray) -> bool:
    """A matrix whose columns are contiguous, in tiles, in the order in which they lie in memory."""
    tile, whole = np.empty((_HIGH, _WIDE + _APART), destination.dtype), True
    for start in range(0, source.shape[1], _HIGH):
        columns = source.T[start : start + _HIGH]
        for run in range(0, len(source), _WIDE):
            part = columns[:, run : run + _WIDE]
            turned = tile[: part.shape[0], : part.shape[1]]
            turned[...] = part
            whole &= finite(turned)
            destination[run : run + _WIDE, start : start + _HIGH] = turned.T
    return whole
