"""Texts scored by a classifier on Apache Beam, so that any runner's workers share them. Imports Beam."""

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np

from cptjax.data.beam_tokenizing import beam_options
from cptjax.selection.text_classifier import TextClassifier

_TOGETHER = 256  # texts in an element


class ScoreTexts(beam.DoFn):
    """(number, texts) -> (number, scores)."""

    def __init__(self, model: TextClassifier):
        self._model = model

    def process(self, element: tuple[int, list[str]]) -> Iterator[tuple[int, list[float]]]:
        number, texts = element
        yield number, self._model.scores(texts).tolist()


def score_on_beam(
    model: TextClassifier, texts: Iterable[str], runner: str, options: Iterable[str] = (), scratch: str | None = None
) -> np.ndarray:
    """float64 [texts]: what `model.scores` gives, computed by the workers of a Beam runner.

    Texts and scores pass through files in `scratch`, a folder that all workers see (None: a temporary one of this machine).

    Raises:
        ConfigurationError: a runner or an option that Beam does not know.
    """
    texts, found = iter(texts), {}
    flags = beam_options(runner, list(options))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        source = Path(folder) / "texts.jsonl"
        with source.open("w", encoding="utf-8") as lines:
            for number in itertools.count():
                if not (batch := list(itertools.islice(texts, _TOGETHER))):
                    break
                lines.write(json.dumps([number, batch]) + "\n")
        with beam.Pipeline(options=flags) as pipeline:
            scored = pipeline | beam.io.ReadFromText(str(source)) | beam.Map(json.loads) | beam.Reshuffle()
            scored = scored | beam.ParDo(ScoreTexts(model)) | beam.Map(json.dumps)
            _ = scored | beam.io.WriteToText(str(Path(folder) / "scores"))
        for path in Path(folder).glob("scores-*"):
            with path.open(encoding="utf-8") as lines:
                found.update(map(json.loads, lines))
    return np.array([score for number in sorted(found) for score in found[number]], np.float64)
