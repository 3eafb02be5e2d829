"""How much a ratio of sums would vary with other documents: the bootstrap, over documents as they were drawn."""

from collections.abc import Callable, Iterator

import numpy as np

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)  # of a 95% interval
FEW_DOCUMENTS = 20  # below, a bootstrap over documents is too narrow to be believed
_DRAWN_AT_ONCE = 1 << 22  # counts held in memory

Interval = tuple[float, float] | tuple[None, None]


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> Interval:
    """The 95% interval of sum(numerators) / sum(denominators), one of each a document; None, None for one document, and
    where a document's is not finite."""
    return _interval(lambda sums: sums[:, 0] / sums[:, 1], np.stack([numerators, denominators]), seed)


def paired_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    base_numerators: np.ndarray,
    base_denominators: np.ndarray,
    seed: int,
    of: Callable[[np.ndarray], np.ndarray] = lambda ratio: ratio,
) -> Interval:
    """The 95% interval of the difference of two such ratios over the same documents, which are drawn in pairs.

    What makes a document hard for both cancels, so that it is narrower than the ratios' own intervals.

    Args:
        of: the difference is of this function of the ratios.
    """
    values = np.stack([numerators, denominators, base_numerators, base_denominators])
    return _interval(lambda sums: of(sums[:, 0] / sums[:, 1]) - of(sums[:, 2] / sums[:, 3]), values, seed)


def resampled_sums(values: np.ndarray, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Sums of [k, documents] `values` over as many documents drawn with replacement: float64 [resamples, k]."""
    return np.concatenate([counts @ values.T.astype(np.float64) for counts in _draws(values.shape[1], seed, resamples)])


def _draws(documents: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each document is drawn in each resample: [some resamples, documents], in pieces that fit in memory."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // documents)
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        yield generator.multinomial(documents, np.full(documents, 1 / documents), count).astype(np.float64)


def _interval(statistic, values: np.ndarray, seed: int) -> Interval:
    if values.shape[1] < 2 or not np.isfinite(values).all():
        return None, None  # nothing varies, or nothing can be added up: neither says anything
    low, high = np.percentile(statistic(resampled_sums(values, seed)), PERCENTILES)
    return float(low), float(high)
