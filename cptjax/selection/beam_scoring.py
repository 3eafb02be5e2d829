"""Texts scored by a classifier on Apache Beam, so that any runner's workers share them. Imports Beam."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np

from cptjax.selection.text_classifier import TextClassifier
from cptjax.selection.through_beam import through_beam

_TOGETHER = 256  # texts in an element


class ScoreTexts(beam.DoFn):
    """(number, texts) -> (number, scores)."""

    def __init__(self, model: TextClassifier):
        self._model = model

    def process(self, element: tuple[int, list[str]]) -> Iterator[tuple[int, list[float]]]:
        number, texts = element
        yield number, self._model.scores(texts).tolist()


def score_on_beam(
    model: TextClassifier, texts: Iterable[str], runner: str, options: Sequence[str] = (), scratch: str | None = None
) -> np.ndarray:
    """float64 [texts]: what `model.scores` gives, computed by workers; see `through_beam` for which."""
    texts = iter(texts)

    def elements() -> Iterator[tuple[int, list[str]]]:
        for number in itertools.count():
            if not (batch := list(itertools.islice(texts, _TOGETHER))):
                return
            yield number, batch

    found = dict(through_beam(elements(), lambda read: read | beam.ParDo(ScoreTexts(model)), runner, options, scratch))
    return np.array([score for number in sorted(found) for score in found[number]], np.float64)
