"""The losses of several checkpoints on the documents that all have, as they are and as they are under each draw of documents."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cptjax.evaluation.bootstrap import PERCENTILES, Interval, resampled_sums
from cptjax.evaluation.documents import document_keys
from cptjax.evaluation.measurement import Measurement

DOCUMENTS = "documents (these checkpoints only)"  # what varies in the intervals

Losses = Mapping[str, float]  # by label


def losses_of(measurements: Sequence[Measurement], domain: str, seed: int) -> tuple[Losses, list[Losses], int]:
    """Each checkpoint's loss on the documents that all have, the same under each draw of documents, and their number.

    Nats per token; bits per byte where tokenizers differ.
    """
    same = all(found.same_tokens(measurements[0]) for found in measurements)
    keys = [list(document_keys(found.sources[domain])) for found in measurements]
    shared = set.intersection(*map(set, keys))
    sums = []
    for found, mine in zip(measurements, keys, strict=True):
        losses = found.sources[domain]
        order = [place for _, place in sorted((key, place) for place, key in enumerate(mine) if key in shared)]
        per = losses.tokens if same else losses.bytes * math.log(2)
        sums += [losses.nats[order], np.asarray(per, np.float64)[order]]
    labels = [found.label for found in measurements]

    def as_losses(row: np.ndarray) -> Losses:
        return dict(zip(labels, (row[0::2] / row[1::2]).tolist(), strict=True))

    values = np.stack(sums)
    drawn = [] if len(shared) < 2 else [as_losses(row) for row in resampled_sums(values, seed)]
    return as_losses(values.sum(axis=1)), drawn, len(shared)


def drawn_interval(values: Sequence[float | None]) -> Interval:
    """The 95% interval of what was read under each draw; none where one draw could not be read, or nothing was drawn."""
    if not values or any(value is None for value in values):
        return None, None
    low, high = np.percentile(np.array(values), PERCENTILES)
    return float(low), float(high)
