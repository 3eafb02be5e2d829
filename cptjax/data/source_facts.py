"""What the sources of a plan hold and what its stages read of them, without decoding a text."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from cptjax.data.plan import DataPlan
from cptjax.data.rows import RowReader

QUANTILES = {"shortest": 0.0, "10%": 0.1, "median": 0.5, "90%": 0.9, "longest": 1.0}
_BINS_A_DOUBLING = 2  # of the histogram of lengths
_INDEX = 4096  # documents of the index read at a time


@dataclasses.dataclass(frozen=True)
class SourceFacts:
    """What a source's training rows hold, and what is held out of it (0 where nothing is).

    Attributes:
        trained: whether a stage reads it; one that is only evaluated has nothing but its held-out documents here.
        fill: share of the rows' positions that hold a token; cut: documents in more than one piece.
        lengths: tokens of a training document, by the names of QUANTILES; empty without training documents.
        histogram: edges (tokens; one more than counts) and counts of training documents between them.
    """

    name: str
    trained: bool
    documents: int
    bytes: int
    tokens: int
    rows: int
    fill: float
    cut: int
    held_out_documents: int
    held_out_tokens: int
    lengths: Mapping[str, int]
    histogram: Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True)
class StageShare:
    """What a stage reads of a source; `first` and `last` are steps as the log counts, from 1; `share` of its tokens."""

    stage: str
    source: str
    first: int
    last: int
    share: float
    tokens: float
    bytes: float
    epochs: float


def source_facts(name: str, train: RowReader | None, held_out: RowReader | None, cut: int) -> SourceFacts:
    """The facts of a source whose training rows have `cut` documents in more than one piece."""
    kept = held_out.manifest if held_out is not None else None
    held = {
        "held_out_documents": kept.documents if kept else 0,
        "held_out_tokens": kept.tokens if kept else 0,
    }
    if train is None:
        return SourceFacts(name, False, 0, 0, 0, 0, 0.0, 0, **held, lengths={}, histogram={"edges": [], "counts": []})
    manifest = train.manifest
    lengths = np.array(
        [
            document["tokens"]
            for begin in range(0, manifest.documents, _INDEX)
            for document in train.documents(range(begin, min(begin + _INDEX, manifest.documents)))
        ],
        np.int64,
    )
    quantiles = np.quantile(lengths, list(QUANTILES.values()), method="inverted_cdf").tolist() if len(lengths) else []
    return SourceFacts(
        name,
        True,
        manifest.documents,
        manifest.bytes,
        manifest.tokens,
        manifest.rows,
        manifest.tokens / (manifest.rows * manifest.sequence_length),
        cut,
        **held,
        lengths=dict(zip(QUANTILES, map(int, quantiles), strict=False)),
        histogram=histogram(lengths),
    )


def histogram(lengths: np.ndarray) -> dict[str, list[int]]:
    """`edges` and `counts` of lengths (int64 [documents]); two bins a doubling, each from its edge up to, not with, the next."""
    if not len(lengths):
        return {"edges": [], "counts": []}
    first, last = (int(np.floor(_BINS_A_DOUBLING * np.log2(max(1, each)))) for each in (lengths.min(), lengths.max()))
    edges = np.unique(np.ceil(2.0 ** (np.arange(first, last + 2) / _BINS_A_DOUBLING)).astype(np.int64))
    edges[0] = min(edges[0], lengths.min())
    if edges[-1] <= lengths.max():
        edges = np.append(edges, lengths.max() + 1)
    counts = np.bincount(np.searchsorted(edges, lengths, "right") - 1, minlength=len(edges) - 1)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def stage_shares(plan: DataPlan) -> list[StageShare]:
    """What each stage reads of each of its sources, on the average of the source's rows."""
    found, begin = [], 0
    for stage in plan.stages:
        end = begin + stage.steps
        before, after = plan.exposures(begin), plan.exposures(end)
        rows = {name: after[name] - before[name] for name in stage.parts}
        tokens = plan.tokens(rows)
        for name, count in rows.items():
            info = plan.sources[name]
            found.append(
                StageShare(
                    stage.name,
                    name,
                    begin + 1,
                    end,
                    tokens[name] / sum(tokens.values()),
                    tokens[name],
                    count * info.bytes / info.rows,
                    count / info.rows,
                )
            )
        begin = end
    return found
