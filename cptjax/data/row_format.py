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
    batch = {name: np.zeros(shape, np.int32) for name in ("inputs", "targets", "segment_ids", "positions")}
    batch["weights"] = np.zeros(shape, np.float32)
    for b, row in enumerate(rows):
        pieces, n = len(row.lengths), int(row.lengths.sum())
        begins = np.cumsum(row.lengths) - row.lengths
        owner = np.repeat(np.arange(pieces), row.lengths)  # the piece that each position belongs to
        at = np.arange(n)
        batch["inputs"][b, :n] = row.stream[at + owner]  # each earlier piece holds one token more than positions
        batch["targets"][b, :n] = row.stream[at + owner + 1]
        batch["segment_ids"][b, :n] = owner + 1
        batch["positions"][b, :n] = at - begins[owner]
        batch["weights"][b, :n] = 1.0 if row.weights is None else row.weights
    return batch
