"""Choosing a checkpoint without flattering it: by one half of the documents or questions, reported on the other half.

The lowest of several noisy losses is lower than that checkpoint's loss is; so what chooses is left out of what is reported
(reviewers of arXiv 2501.02068 called the opposite leakage).
"""

import dataclasses
import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.evaluation.alike import groups_of
from cptjax.evaluation.documents import document_keys
from cptjax.evaluation.exams.answers import ACCURACIES
from cptjax.evaluation.exams.examples import SIMILAR
from cptjax.evaluation.exams.questions import Question
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.result_row import result_row

SELECTION, SELECTED, SELECTING = "selection", "selected", "selecting_"


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was chosen, and by what.

    Attributes:
        label: of the chosen checkpoint; metric: what it is best in; values: each candidate's, over `n` documents or questions.
        rows: of evaluation.jsonl.
        reported: all measurements, without what has chosen.
    """

    label: str
    metric: str
    values: dict[str, float]
    n: int
    rows: list[dict[str, Any]]
    reported: list[Measurement]


def names_of(questions: Iterable[Question]) -> list[int]:
    """What decides on which half each question is: a number that questions made of one document share, and questions that are
    alike (the same text, or SIMILAR shingles), whatever their ids."""
    texts, of = zip(*((each.question, each.document) for each in questions), strict=True)
    return groups_of(texts, SIMILAR, of)


def select(
    measurements: Sequence[Measurement],
    base: Measurement,
    on: str,
    questions: Sequence[Hashable] | None = None,
    groups: Mapping[str, Hashable] | None = None,
) -> Selection:
    """Chooses among all but the base: the lowest loss on the source `on` (where tokenizers differ bits per byte, over the
    documents that all hold out), or the highest accuracy in the exam `on` (of the cloze form where it was asked in it); the first
    of equals. What is not finite is not chosen.

    Args:
        questions: where `on` is an exam, the names of its scored questions (`names_of`).
        groups: where `on` is a source, by document what near-duplicates have in common (`alike.document_groups`).

    Raises:
        ConfigurationError: `on` was not measured, nothing is there to choose among, or half of it is nothing.
    """
    candidates = [found for found in measurements if found is not base]
    if len(candidates) < 2:
        raise ConfigurationError(
            f"SELECT_ON = {on!r}, but beside the base there are not two checkpoints to choose among."
        )
    if (on in base.sources) == (on in base.exams):
        names = ", ".join(map(repr, (*base.sources, *base.exams)))
        raise ConfigurationError(f"SELECT_ON = {on!r}; it is the name of a source or of an exam: {names}.")
    halves = {found.label: _chooses(found, on, questions, groups) for found in measurements}
    if any(half.all() or not half.any() for half in halves.values()):
        raise ConfigurationError(f"SELECT_ON = {on!r}: it has too few documents or questions to be halved.")
    if on in base.sources:
        metric, values, n = _losses(candidates, base, on, halves)
    else:
        of = candidates[0].exams[on].columns
        metric = next(names[0] for names in reversed(ACCURACIES.values()) if names[0] in of)
        values = {each.label: float(each.exams[on].columns[metric][halves[each.label]].mean()) for each in candidates}
        n = int(halves[base.label].sum())
    finite = {label: value for label, value in values.items() if np.isfinite(value)}
    if not finite:
        raise ConfigurationError(
            f"SELECT_ON = {on!r}: no checkpoint has a finite {metric} there, so that none is the best."
        )
    best = (min if on in base.sources else max)(finite, key=lambda label: finite[label])
    kind = "documents" if on in base.sources else "questions"
    said = f"{kind} that choose, and are in no other row"
    rows = []
    for found in candidates:
        for name, value in ((SELECTING + metric, values[found.label]), (SELECTED, float(found.label == best))):
            rows.append(result_row(found, SELECTION, on, name, value, (None, None), said, n))
    return Selection(
        best, metric, values, n, rows, [_without(halves[found.label], found, on) for found in measurements]
    )


def selection_sentence(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """What was chosen, by the rows of an evaluation.jsonl; None where nothing was."""
    rows = [row for row in rows if row["suite"] == SELECTION]
    label = next((row["checkpoint"] for row in rows if row["metric"] == SELECTED and row["value"] == 1.0), None)
    by = next((row for row in rows if row["checkpoint"] == label and row["metric"] != SELECTED), None)
    if by is None:
        return None
    return (
        f"chosen by {by['metric'].removeprefix(SELECTING)} on {by['n']:,} {by['interval'].split()[0]} of {by['subset']}, "
        f"which are in no line above: {label} ({by['value']:.4f})"
    )


def _losses(
    candidates: Sequence[Measurement], base: Measurement, on: str, halves: Mapping[str, np.ndarray]
) -> tuple[str, dict[str, float], int]:
    """The metric of a source that is the same for all, each one's value over the choosing documents, and their number."""
    metric = "loss" if all(found.same_tokens(base) for found in candidates) else "bits_per_byte"
    keys = {found.label: list(document_keys(found.sources[on])) for found in candidates}
    shared = set.intersection(*map(set, keys.values()))  # with other tokens other documents may be held out
    values, n = {}, 0
    for found in candidates:
        common = np.array([key in shared for key in keys[found.label]], bool)
        chosen = found.sources[on].take(np.flatnonzero(halves[found.label] & common))
        if not len(chosen):
            raise ConfigurationError(
                f"SELECT_ON = {on!r}: the checkpoints hold out too few documents in common to choose by."
            )
        values[found.label], n = float(getattr(chosen.total, metric)), len(chosen)
    return metric, values, n


def _without(half: np.ndarray, found: Measurement, on: str) -> Measurement:
    kept = ~half
    if on in found.sources:
        return dataclasses.replace(found, sources={**found.sources, on: found.sources[on].take(np.flatnonzero(kept))})
    return dataclasses.replace(found, exams={**found.exams, on: found.exams[on].take(kept)})


def _chooses(
    found: Measurement, on: str, questions: Sequence[Hashable] | None, groups: Mapping[str, Hashable] | None
) -> np.ndarray:
    """bool by document or question: whether it is of the half that chooses, the same for all checkpoints."""
    if on in found.sources:
        names = [(groups or {}).get(name, name) for name in found.sources[on].names]
    elif questions is None:
        raise ValueError(f"the questions of {on!r} are not named")
    else:
        names = list(questions)
    hashed = (hashlib.sha256(f"{on} {name}".encode()).digest()[0] for name in names)
    return np.fromiter((first < 128 for first in hashed), bool, len(names))
