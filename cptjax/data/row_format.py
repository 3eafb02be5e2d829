"""The bytes of one row, and a batch of rows as arrays.

A record is little-endian: pieces (uint32), bytes per token (uint8: 2 or 4), bytes per weight (uint8: 0 or 4), two
zero bytes; then the pieces' ordinals (int64 each), their lengths (uint32 each), the token stream (sum of lengths +
pieces) and the loss weights (sum of lengths float32, or nothing). What is padding in a batch is not stored.
"""

import struct
from collections.abc import Sequence

import numpy as np

from cptjax.data.packing import Row
from cptjax.errors import CptjaxError

_HEADER = struct.Struct("<IBBH")
_TOKENS = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


def token_bytes(vocabulary: int) -> int:
    """Bytes that hold any id below `vocabulary`."""
    return 2 if vocabulary <= 1 << 16 else 4


def encode_row(row: Row, width: int) -> bytes:
    """The record of `row` with `width` bytes a token."""
    weighted = row.weights is not None
    parts = [
        _HEADER.pack(len(row.lengths), width, 4 if weighted else 0, 0),
        row.ordinals.astype("<i8").tobytes(),
        row.lengths.astype("<u4").tobytes(),
        row.stream.astype(_TOKENS[width]).tobytes(),
    ]
    return b"".join([*parts, row.weights.astype("<f4").tobytes()] if weighted else parts)


def decode_row(record: bytes, origin: str) -> Row:
    """The row of a record. Raises CptjaxError naming `origin` when the record's size contradicts its header."""
    size = len(record)
    if size >= _HEADER.size:
        pieces, width, weight_bytes, _ = _HEADER.unpack_from(record)
        stream_at = _HEADER.size + 12 * pieces
        if width in _TOKENS and weight_bytes in (0, 4) and size >= stream_at:
            ordinals = np.frombuffer(record, "<i8", pieces, _HEADER.size)
            lengths = np.frombuffer(record, "<u4", pieces, _HEADER.size + 8 * pieces).astype(np.int64)
            positions = int(lengths.sum())
            weights_at = stream_at + (positions + pieces) * width
            if size == weights_at + positions * weight_bytes:
                stream = np.frombuffer(record, _TOKENS[width], positions + pieces, stream_at)
                weights = np.frombuffer(record, "<f4", positions, weights_at) if weight_bytes else None
                return Row(lengths, ordinals, stream, weights)
    raise CptjaxError(
        f"{origin} is damaged: {size} bytes that are not a packed row.\n  Delete the folder to prepare it again."
    )


def batch_of(rows: Sequence[Row], sequence_length: int) -> dict[str, np.ndarray]:
    """Rows as a training batch: `inputs, targets, segment_ids, positions` int32 and `weights` float32, [rows, length].

    Pieces are segments 1, 2, ...; positions restart at 0 with each; padding is segment 0, weight 0.
    """
    shape = (len(rows), sequence_length)
    pieces = np.array([len(row.lengths) for row in rows], np.int64)
    lengths = np.concatenate([np.zeros(0, np.int64), *(row.lengths for row in rows)])
    stream = np.concatenate([np.zeros(0, np.int32), *(row.stream for row in rows)], dtype=np.int32, casting="unsafe")
    # All rows at once, one piece after the other: a piece's inputs are its tokens but the last, its targets all but the first.
    ends = np.cumsum(lengths)
    last = np.cumsum(lengths + 1) - 1
    inner = np.ones(len(stream), bool)
    inner[last] = False
    inputs = stream[inner]
    inner[last] = True
    inner[last - lengths] = False
    targets = stream[inner]
    owner = np.arange(1, len(lengths) + 1) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 1, 2, ... in each row
    segment_ids = np.repeat(owner.astype(np.int32), lengths)
    positions = np.arange(len(inputs), dtype=np.int32) - np.repeat((ends - lengths).astype(np.int32), lengths)
    filled = np.diff(np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(pieces)])])
    if any(row.weights is not None for row in rows):
        sizes = zip(rows, filled.tolist(), strict=True)
        weights = np.concatenate([np.ones(n, np.float32) if row.weights is None else row.weights for row, n in sizes])
    else:
        weights = np.ones(len(inputs), np.float32)
    batch = {
        "inputs": inputs,
        "targets": targets,
        "segment_ids": segment_ids,
        "positions": positions,
        "weights": weights.astype(np.float32, copy=False),
    }
    if (filled == sequence_length).all():
        return {name: array.reshape(shape) for name, array in batch.items()}
    there = np.arange(sequence_length) < filled[:, None]
    padded = {name: np.zeros(shape, array.dtype) for name, array in batch.items()}
    for name, array in batch.items():
        padded[name][there] = array
    return padded
