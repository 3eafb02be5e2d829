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
        drawn: whether the others were drawn from the corpus that is judged. Some of them are then of the domain: what is taken
            of them is taken rightly in part, so precision is a lower bound, and p cannot be corrected by it.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    false_positives: np.ndarray
    positives: int
    negatives: int
    drawn: bool = False

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Precision, recall and the share of other texts that is taken, at one of `thresholds`."""
        i = int(np.argmin(np.abs(self.thresholds - threshold)))
        return float(self.precision[i]), float(self.recall[i]), float(self.false_positives[i])


def measure(scores: np.ndarray, positive: np.ndarray) -> dict[str, np.ndarray]:
    """Precision (at equal shares of both kinds), recall and false positives at every thousandth, as arrays by name."""
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


def domain_share(
    scores: np.ndarray, sizes: np.ndarray, measured: Measured, threshold: float
) -> tuple[float, float | None]:
    """The domain's share p of a corpus by size: what is taken; and (taken - false positives) / (recall - false positives).

    The correction (Gart and Buck 1966; "adjusted count") holds as far as the held-out texts are like the corpus. It is None where
    the others were drawn from this corpus (as much of them is taken as of it, by design, whatever p is), and where no more is taken
    of the domain than of the others.
    """
    taken = float(sizes[scores >= threshold].sum() / max(1, sizes.sum()))
    _, recall, false = measured.at(threshold)
    if measured.drawn or recall <= false:
        return taken, None
    return taken, min(1.0, max(0.0, (taken - false) / (recall - false)))


def share_said(scores: np.ndarray, sizes: np.ndarray, measured: Measured, threshold: float, of: str) -> str:
    """What `domain_share` found, as a sentence; `of`: what sizes are in."""
    taken, corrected = domain_share(scores, sizes, measured, threshold)
    said = f"the domain's share of the corpus (p): {taken:.4f} of its {of} by what is taken, "
    if corrected is not None:
        return f"{said}{corrected:.4f} corrected for both kinds of error"
    if measured.drawn:
        return f"{said}not corrected: the other texts were drawn from this corpus; name OTHERS"
    return f"{said}not corrected: at this threshold no more is taken of the domain than of other texts"


def curve(measured: Measured, scores: np.ndarray, sizes: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """All of it at THRESHOLDS, and what each would keep of the corpus, as a table with its head first; a dash is for no number."""
    head = ("threshold", "precision", "recall", "other texts taken", "of the corpus", "p, corrected")
    rows = []
    for threshold in THRESHOLDS:
        shown = (*measured.at(threshold), *domain_share(scores, sizes, measured, threshold))
        rows.append((f"{threshold:g}", *("–" if each is None else f"{each:.4f}" for each in shown)))
    return (head, *rows)
