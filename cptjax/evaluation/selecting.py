"""Choosing a checkpoint without flattering it: by one half of the documents or questions, reported on the other half.

The lowest of several noisy losses is lower than that checkpoint's loss is; so what chooses is left out of what is reported
(reviewers of arXiv 2501.02068 called the opposite leakage).
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.data.splits import same_text
from cptjax.errors import ConfigurationError
from cptjax.evaluation.documents import document_keys
from cptjax.evaluation.exams.answers import ACCURACIES, ExamAnswers
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


def names_of(questions: Iterable[Question]) -> list[str]:
    """What decides on which half each question is: the document that it was made of, or else its text, folded as near-duplicates
    are, so that the same question under another id is on the same half."""
    return [same_text(each.question) if each.document is None else f"document {each.document}" for each in questions]


def select(
    measurements: Sequence[Measurement], base: Measurement, on: str, questions: Sequence[str] | None = None
) -> Selection:
    """Chooses among all but the base: the lowest loss on the source `on` (where tokenizers differ bits per byte, over the
    documents that all hold out), or the highest accuracy in the exam `on` (of the cloze form where it was asked in it); the first
    of equals. What is not finite is not chosen.

    Args:
        questions: where `on` is an exam, the names of its scored questions (`names_of`).

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
    halves = {found.label: _chooses(found, on, questions) for found in measurements}
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
    answers = found.exams[on]
    columns = {name: column[kept] for name, column in answers.columns.items()}
    documents = None
    if answers.documents is not None:
        documents = np.unique(answers.documents[kept], return_inverse=True)[1]
    return dataclasses.replace(found, exams={**found.exams, on: ExamAnswers(columns, documents, answers.cut)})


def _chooses(found: Measurement, on: str, questions: Sequence[str] | None) -> np.ndarray:
    """bool by document or question: whether it is of the half that chooses, the same for all checkpoints."""
    names = found.sources[on].names if on in found.sources else questions
    if names is None:
        raise ValueError(f"the questions of {on!r} are not named")
    hashed = (hashlib.sha256(f"{on} {name}".encode()).digest()[0] for name in names)
    return np.fromiter((first < 128 for first in hashed), bool, len(names))
