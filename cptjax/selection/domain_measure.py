"""A classifier measured on texts that it did not see, and what share of a corpus is of its domain."""

import dataclasses

import numpy as np

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of the table


@dataclasses.dataclass(frozen=True)
class Measured:
    """A classifier on held-out texts: at each threshold what share of what it takes is of the domain, and of the domain it takes.

    Attributes:
        thresholds, precision, recall, false_positives: float64 [thresholds], of the texts named in training, as many of one kind
            as of the other weigh the same (`precision` at equal shares of both kinds).
        positives, negatives: texts held out.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    false_positives: np.ndarray
    positives: int
    negatives: int

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Precision, recall and the share of other texts that is taken, at one of `thresholds`."""
        i = int(np.argmin(np.abs(self.thresholds - threshold)))
        return float(self.precision[i]), float(self.recall[i]), float(self.false_positives[i])


def measure(scores: np.ndarray, positive: np.ndarray) -> dict[str, np.ndarray]:
    """Precision (at equal shares of both kinds), recall and false positives at every hundredth, as arrays by name."""
    thresholds = np.arange(1, 1000) / 1000
    recall = 1 - np.searchsorted(np.sort(scores[positive]), thresholds) / max(1, positive.sum())
    false = 1 - np.searchsorted(np.sort(scores[~positive]), thresholds) / max(1, (~positive).sum())
    taken = recall + false
    precision = np.divide(recall, taken, out=np.ones_like(recall), where=taken > 0)
    counts = np.array([positive.sum(), (~positive).sum()], np.int64)
    return {
        "thresholds": thresholds,
        "precision": precision,
        "recall": recall,
        "false_positives": false,
        "counts": counts,
    }


def domain_share(scores: np.ndarray, sizes: np.ndarray, measured: Measured, threshold: float) -> tuple[float, float]:
    """The domain's share p of a corpus by size: what is taken; and (taken - false positives) / (recall - false positives).

    The correction (Gart and Buck 1966; "adjusted count") holds as far as the held-out texts are like the corpus.
    """
    taken = float(sizes[scores >= threshold].sum() / max(1, sizes.sum()))
    _, recall, false = measured.at(threshold)
    corrected = (taken - false) / (recall - false) if recall > false else taken
    return taken, min(1.0, max(0.0, corrected))


def curve(measured: Measured, scores: np.ndarray, sizes: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """All of it at THRESHOLDS, and what each would keep of the corpus, as a table with its head first."""
    head = ("threshold", "precision", "recall", "other texts taken", "of the corpus", "p, corrected")
    rows = []
    for threshold in THRESHOLDS:
        precision, recall, false = measured.at(threshold)
        taken, corrected = domain_share(scores, sizes, measured, threshold)
        shown = (precision, recall, false, taken, corrected)
        rows.append((f"{threshold:g}", *(f"{each:.4f}" for each in shown)))
    return (head, *rows)
