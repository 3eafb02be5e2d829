"""What a domain filter learns with: a classifier over character n-grams, or one over embeddings."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cptjax.selection.blocks import Blocks
from cptjax.selection.shards import Shards
from cptjax.selection.text_classifier import TextClassifier, train_classifier


class Learner(NamedTuple):
    """A way to learn from labelled texts.

    Attributes:
        fit: which of them (bool) -> a model of those. score: it, and which of them -> their probabilities (float64).
        every: a model -> those of every unit of the corpus.
    """

    fit: Callable[[np.ndarray], Any]
    score: Callable[[Any, np.ndarray], np.ndarray]
    every: Callable[[Any], np.ndarray]


def over_texts(
    texts: Sequence[str],
    positive: np.ndarray,
    ngrams: tuple[int, int],
    seed: int,
    every: Callable[[TextClassifier], np.ndarray],
) -> Learner:
    """Over n-grams of the texts, which are `positive` or not (bool)."""

    def fit(chosen: np.ndarray) -> TextClassifier:
        return train_classifier(list(itertools.compress(texts, chosen)), positive[chosen], ngrams, seed)

    def score(model: TextClassifier, chosen: np.ndarray) -> np.ndarray:
        return model.scores(itertools.compress(texts, chosen))

    return Learner(fit, score, every)


def over_vectors(points: Shards, known: np.ndarray, positive: np.ndarray, units: int) -> Learner:
    """Over embeddings: of the corpus's units, the first of `points`, and of the texts, which stand there at `known`."""
    from sklearn.linear_model import LogisticRegression

    vectors = np.asarray(points[known], np.float32)

    def fit(chosen: np.ndarray) -> LogisticRegression:
        return LogisticRegression(class_weight="balanced", max_iter=1000).fit(vectors[chosen], positive[chosen])

    def score(model: LogisticRegression, chosen: np.ndarray) -> np.ndarray:
        return model.predict_proba(vectors[chosen])[:, 1]

    def every(model: LogisticRegression) -> np.ndarray:
        blocks = Blocks(points, chosen=np.arange(units))
        return np.concatenate([model.predict_proba(np.asarray(block, np.float32))[:, 1] for block in blocks])

    return Learner(fit, score, every)
