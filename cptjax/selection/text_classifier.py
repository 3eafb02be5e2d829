"""Logistic regression over hashed character n-grams (scikit-learn): without a vocabulary, so that texts are scored as they come."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

_FEATURES = 1 << 20
_TOGETHER = 512  # texts
_LONGEST = 20_000  # characters of a text that are looked at


@dataclasses.dataclass(frozen=True)
class TextClassifier:
    """A trained classifier, as plain numbers.

    Attributes:
        weights: float32 [features]; bias: of the logistic regression. ngrams: the shortest and the longest.
    """

    weights: np.ndarray
    bias: float
    ngrams: tuple[int, int]

    def scores(self, texts: Iterable[str]) -> np.ndarray:
        """float64 [texts]: the probability of each that it is of the domain."""
        texts, found = iter(texts), [np.zeros(0)]
        while batch := list(itertools.islice(texts, _TOGETHER)):
            found.append(1 / (1 + np.exp(-(_hashed(batch, self.ngrams) @ self.weights + self.bias))))
        return np.concatenate(found).astype(np.float64)


def train_classifier(
    texts: Sequence[str], positive: np.ndarray, ngrams: Sequence[int] = (3, 5), seed: int = 0
) -> TextClassifier:
    """Learns which texts are positive (bool). Both kinds weigh the same, however many there are of each."""
    from sklearn.linear_model import LogisticRegression

    ngrams = (int(ngrams[0]), int(ngrams[1]))
    model = LogisticRegression(class_weight="balanced", C=10.0, max_iter=200, random_state=seed, solver="liblinear")
    model.fit(_hashed(texts, ngrams), positive)
    return TextClassifier(model.coef_[0].astype(np.float32), float(model.intercept_[0]), ngrams)


def _hashed(texts: Sequence[str], ngrams: tuple[int, int]):
    """A sparse float32 matrix [texts, features], each row of length 1."""
    return _vectorizer(ngrams).transform([text[:_LONGEST] for text in texts])


@functools.cache
def _vectorizer(ngrams: tuple[int, int]):
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        n_features=_FEATURES, analyzer="char_wb", ngram_range=ngrams, alternate_sign=False, dtype=np.float32
    )
