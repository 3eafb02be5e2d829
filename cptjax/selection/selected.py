"""What a selection says of every unit: kept or not, by which stage, why, and in whose place another stays."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Reason(NamedTuple):
    """Why a stage drops a unit; "{}" in `text` stands for the unit that stays, or blocks it."""

    stage: str
    text: str


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a stage looked at, for the report.

    Attributes:
        title: of the stage.
        units: int64, the units that entered it.
        points: their embeddings (an array or shards), None where there are none.
        labels: int, the cluster of each; below 0 for none. typicality: its place there, NaN for none.
        sentences: what else is to be said.
        heading, rows: a table: what it shows, and its lines with its head first, or none.
        curves: of what is measured at thresholds: (label, thresholds, values) each.
        samples: units to be read, each with a heading; indices of `units`.
    """

    title: str
    units: np.ndarray
    points: object = None
    labels: np.ndarray | None = None
    typicality: np.ndarray | None = None
    sentences: tuple[str, ...] = ()
    heading: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    curves: tuple[tuple[str, np.ndarray, np.ndarray], ...] = ()
    samples: tuple[tuple[str, np.ndarray], ...] = ()


@dataclasses.dataclass(frozen=True)
class Selection:
    """What becomes of each unit.

    Attributes:
        kept: bool [units].
        reason: int8 [units], why it is dropped, of `reasons`; -1 for what is kept.
        instead: int64 [units], the unit that stays in its place, or blocks it; -1 where there is none.
        cluster: int64 [units], its cluster or group; -1 for none.
        score: float64 [units], what it was decided by; NaN for nothing.
        found: sentences on what was done.
    """

    kept: np.ndarray
    reason: np.ndarray
    instead: np.ndarray
    cluster: np.ndarray
    score: np.ndarray
    reasons: tuple[Reason, ...]
    found: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    def __len__(self) -> int:
        return len(self.kept)


def selection_of(
    kept: np.ndarray,
    reason: Reason,
    instead: np.ndarray | None = None,
    cluster: np.ndarray | None = None,
    score: np.ndarray | None = None,
    found: Sequence[str] = (),
    evidence: Sequence[Evidence] = (),
) -> Selection:
    """The selection of one stage; what is not given there is none of."""
    none = np.full(len(kept), -1, np.int64)
    return Selection(
        np.asarray(kept, bool),
        np.where(kept, -1, 0).astype(np.int8),
        none if instead is None else np.asarray(instead, np.int64),
        none if cluster is None else np.asarray(cluster, np.int64),
        np.full(len(kept), np.nan) if score is None else np.asarray(score, np.float64),
        (reason,),
        tuple(found),
        tuple(evidence),
    )


def after(first: Selection, then: Selection) -> Selection:
    """Two selections one after the other: `then` chose from what `first` kept, in its order."""
    left = np.flatnonzero(first.kept)
    kept, reason = first.kept.copy(), first.reason.copy()
    kept[left] = then.kept
    reason[left] = np.where(then.reason < 0, -1, then.reason + len(first.reasons))
    merged = {}
    for name in ("instead", "cluster", "score"):
        merged[name] = getattr(first, name).copy()
    merged["instead"][left] = np.where(then.instead < 0, -1, left[then.instead])
    merged["cluster"][left] = then.cluster  # numbers of this stage: those of a kept unit are of the last one
    merged["score"][left] = then.score
    evidence = [dataclasses.replace(each, units=left[each.units]) for each in then.evidence]
    return Selection(
        kept,
        reason,
        reasons=first.reasons + then.reasons,
        found=first.found + then.found,
        evidence=first.evidence + tuple(evidence),
        **merged,
    )
