"""How many seeds a contrast needs, and how often arms that differ in seed alone are told apart (the A/A null)."""

import math

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

from cptjax.studies.intervals import COVERAGE, Measured, difference

POWER = 0.8
MOST_SEEDS = 10**6


def power_of(seeds: int, effect: float, deviation: float, documents: float, paired: bool = False) -> float:
    """The chance that an interval over so many seeds of each arm leaves out zero, when the difference is `effect`.

    Args:
        deviation: of the difference between two single runs; documents: the variance that documents leave.
        paired: seeds are compared in pairs (a shared trunk).
    """
    if seeds < 2:
        return 0.0
    freedom = (seeds - 1) * (1 if paired else 2)
    error = math.sqrt(deviation**2 / seeds + documents)
    if error == 0:
        return 1.0
    reach = student.ppf((1 + COVERAGE) / 2, freedom)
    return float(nct.sf(reach, freedom, effect / error))


def seeds_needed(effect: float, deviation: float, documents: float, paired: bool = False) -> int | None:
    """The fewest seeds of each arm that find `effect` with a chance of 80%.

    None where no number (up to a million) does: the held-out documents are too few.
    """
    if power_of(MOST_SEEDS, effect, deviation, documents, paired) < POWER:
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle, effect, deviation, documents, paired) >= POWER else (middle, high)
    return high


def smallest_effect(seeds: int, deviation: float, documents: float, paired: bool = False) -> float:
    """The smallest difference that so many seeds would have found with a chance of 80%."""
    if seeds < 2:
        return math.inf
    low, high = 0.0, 2.0 * (deviation + math.sqrt(documents)) + 1e-12
    while power_of(seeds, high, deviation, documents, paired) < POWER:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(seeds, middle, deviation, documents, paired) >= POWER else (middle, high)
    return high


def simulated_null(
    studies: int,
    seeds: int,
    documents: int,
    seed_deviation: float,
    document_deviation: float,
    mixed: float,
    seed: int = 0,
    trunk_deviation: float | None = None,
) -> int:
    """How many of so many simulated A/A studies reject: two arms that differ in seed alone.

    A run's nats on a document are the document's own difficulty (shared by all runs), the run's deviation, that of the trunk which
    it continues where both arms continue the same ones, and noise of the pair; documents have lengths that differ.

    Args:
        seed_deviation: of runs; document_deviation: of documents; mixed: of each pair of the two. Nats per unit, around 1.
        trunk_deviation: of trunks, one for each seed, that both arms continue, so that they are compared in pairs; None: none.
    """
    generator = np.random.default_rng(seed)
    rejected = 0
    for study in range(studies):
        units = generator.lognormal(0.0, 0.7, documents)
        hard = 1 + document_deviation * generator.standard_normal(documents)
        shared = trunk_deviation is not None
        trunk = trunk_deviation * generator.standard_normal((seeds, 1)) if shared else 0.0
        arms = []
        for arm in range(2):
            run = seed_deviation * generator.standard_normal((seeds, 1))
            pair = mixed * generator.standard_normal((seeds, documents))
            names = tuple(f"{'trunk' if shared else arm}.{one}" for one in range(seeds))
            arms.append(Measured((hard + trunk + run + pair) * units, units, names))
        rejected += difference(*arms, seed=study, resamples=200).rejects
    return rejected
