"""Choosing a checkpoint without flattering it: by one half of the documents or questions, reported on the other half.

The lowest of several noisy losses is lower than that checkpoint's loss is; so what chooses is left out of what is reported
(reviewers of arXiv 2501.02068 called the opposite leakage).
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.answers import ACCURACIES, ExamAnswers
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.result_row import result_row

SELECTION, SELECTED = "selection", "selected"


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


def select(measurements: Sequence[Measurement], base: Measurement, on: str) -> Selection:
    """Chooses among all but the base: the lowest loss on the source `on` (bits per byte where tokenizers differ), or the highest
    accuracy in the exam `on` (of the cloze form where it was asked in it); the first of equals.

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
    metric, values = "", {}
    of_base = on in base.sources and all(found.same_tokens(base) for found in candidates)
    for found in candidates:
        if on in found.sources:
            chosen = found.sources[on].take(np.flatnonzero(_chooses(found, on)))
            metric = "loss" if of_base else "bits_per_byte"
            values[found.label] = getattr(chosen.total, metric) if len(chosen) else np.nan
        else:
            columns = found.exams[on].columns
            metric = next(names[0] for names in reversed(ACCURACIES.values()) if names[0] in columns)
            chosen = columns[metric][_chooses(found, on)]
            values[found.label] = float(chosen.mean()) if len(chosen) else np.nan
    n = int(_chooses(candidates[0], on).sum())
    if not n or n == len(_chooses(candidates[0], on)):
        raise ConfigurationError(f"SELECT_ON = {on!r}: it has too few documents or questions to be halved.")
    best = (min if on in base.sources else max)(values, key=lambda label: values[label])
    kind = "documents" if on in base.sources else "questions"
    said = f"{kind} that choose, and are in no other row"
    rows = []
    for found in candidates:
        for name, value in ((f"selecting_{metric}", values[found.label]), (SELECTED, float(found.label == best))):
            rows.append(result_row(found, SELECTION, on, name, value, (None, None), said, n))
    return Selection(best, metric, values, n, rows, [_without_choosers(found, on) for found in measurements])


def _without_choosers(found: Measurement, on: str) -> Measurement:
    kept = ~_chooses(found, on)
    if on in found.sources:
        return dataclasses.replace(found, sources={**found.sources, on: found.sources[on].take(np.flatnonzero(kept))})
    answers = found.exams[on]
    columns = {name: column[kept] for name, column in answers.columns.items()}
    documents = None
    if answers.documents is not None:
        documents = np.unique(answers.documents[kept], return_inverse=True)[1]
    return dataclasses.replace(found, exams={**found.exams, on: ExamAnswers(columns, documents, answers.cut)})


def _chooses(found: Measurement, on: str) -> np.ndarray:
    """bool by document or question: whether it is of the half that chooses, the same for all checkpoints. All questions made
    of one document are in one half."""
    if on in found.sources:
        names: Sequence[object] = found.sources[on].names
    else:
        answers = found.exams[on]
        names = range(len(answers)) if answers.documents is None else answers.documents.tolist()
    hashed = (hashlib.sha256(f"{on} {name}".encode()).digest()[0] for name in names)
    return np.fromiter((first < 128 for first in hashed), bool, len(names))
