"""A step's rows as arrays, and the documents that steps read."""

from collections.abc import Mapping

import numpy as np

from cptjax.data.packing import Row
from cptjax.data.plan import DataPlan
from cptjax.data.row_format import batch_of
from cptjax.data.rows import RowReader


def batch(
    readers: Mapping[str, RowReader], plan: DataPlan, step: int, which: slice = slice(None)
) -> dict[str, np.ndarray]:
    """Rows `which` of a step's global batch: `inputs, targets, segment_ids, positions` int32 and `weights` float32
    [rows, sequence_length], and `source` int32 [rows], indices into `plan.names`.
    """
    source, row = plan.rows(step, which)
    pieces: list[Row | None] = [None] * len(source)
    for i in np.unique(source):
        mine = np.flatnonzero(source == i)
        for at, each in zip(mine.tolist(), readers[plan.names[i]].pieces(row[mine]), strict=True):
            pieces[at] = each
    length = readers[plan.names[0]].manifest.sequence_length
    return {**batch_of(pieces, length), "source": source}


def documents_read(readers: Mapping[str, RowReader], plan: DataPlan, steps: range, most: int = 20) -> list[str]:
    """ "<source>: <id>, <id>, ..." for the documents whose tokens these steps read, at most `most` of each source."""
    found: dict[str, dict[str, None]] = {}
    for step in steps:
        source, row = plan.rows(step, slice(None))
        for i in np.unique(source):
            reader = readers[plan.names[i]]
            pieces = reader.pieces(row[source == i])
            ordinals = dict.fromkeys(ordinal for piece in pieces for ordinal in piece.ordinals.tolist())
            names = found.setdefault(plan.names[i], {})
            names.update(dict.fromkeys(document["id"] for document in reader.documents(list(ordinals))))
    return [
        f"{name}: {', '.join(list(ids)[:most])}" + (f" and {len(ids) - most:,} more" if len(ids) > most else "")
        for name, ids in found.items()
    ]
