"""Two checkpoints on the same questions: is one really better?"""

import math

import numpy as np

FLIPS = 20_000
_AT_ONCE = 1 << 22  # signs held in memory


def mcnemar(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, int]:
    """The exact two-sided McNemar test (McNemar 1947; the binomial form) of paired outcomes [questions].

    A question counts by which of the two did better on it; where outcomes lie between right and wrong this is the sign test.

    Returns:
        the p-value, and how many questions the two differ on.
    """
    wins, losses = int((mine > theirs).sum()), int((mine < theirs).sum())
    return _binomial_two_sided(min(wins, losses), wins + losses), wins + losses


def sign_flips(mine: np.ndarray, theirs: np.ndarray, documents: np.ndarray, seed: int) -> tuple[float, int]:
    """The two-sided permutation test of paired outcomes where questions of one document are not independent.

    Were the two equally good, each document's difference might as well have had the other sign; `FLIPS` times the signs of
    all documents are drawn, and the p-value is the share of draws, the real one among them, that differ at least as much.

    Returns:
        the p-value, and how many documents the two differ on.
    """
    by_document = np.bincount(documents, weights=mine - theirs)
    by_document = by_document[by_document != 0]
    if not len(by_document):
        return 1.0, 0
    generator = np.random.default_rng(seed)
    found = abs(by_document.sum()) - 1e-9 * np.abs(by_document).sum()
    at_once, extreme = max(1, _AT_ONCE // len(by_document)), 0
    for first in range(0, FLIPS, at_once):
        signs = generator.integers(0, 2, (min(at_once, FLIPS - first), len(by_document)), np.int8)
        extreme += int((np.abs((2.0 * signs - 1.0) @ by_document) >= found).sum())
    return (1 + extreme) / (1 + FLIPS), len(by_document)


def wilson(right: float, questions: int) -> tuple[float, float]:
    """The 95% score interval of a share (Wilson 1927): `right` of `questions` that are independent."""
    z = 1.959963984540054
    share = right / questions
    middle = share + z * z / (2 * questions)
    reach = z * math.sqrt(share * (1 - share) / questions + z * z / (4 * questions * questions))
    scale = 1 + z * z / questions
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def _binomial_two_sided(fewer: int, tosses: int) -> float:
    """The probability that a fair coin, tossed so often, falls as unevenly as `fewer` of one side, or more so."""
    if not tosses:
        return 1.0
    log = [math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) for k in range(fewer + 1)]
    tail = sum(math.exp(each - tosses * math.log(2)) for each in log)
    return min(1.0, 2 * tail)
