"""How far a clustering agrees with known labels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def contingency(
    clusters: Int[np.ndarray, " units"], labels: Sequence[str]
) -> tuple[list[str], Int[np.ndarray, "clusters labels"]]:
    """The labels in alphabetical order, and of each cluster how many units have each of them."""
    names, which = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
    table = np.zeros((int(clusters.max()) + 1, len(names)), np.int64)
    np.add.at(table, (clusters, which), 1)
    return names.tolist(), table


def purity(table: Int[np.ndarray, "clusters labels"]) -> float:
    """The share of units that have the commonest label of their cluster."""
    return float(table.max(axis=1).sum() / table.sum())


def adjusted_rand(table: Int[np.ndarray, "clusters labels"]) -> float:
    """Pairs of units that both put together or both apart, corrected for chance (Hubert and Arabie 1985, equation 5).

    1 where clusters are the labels, about 0 where they have nothing to do with them. 1 also where both put all units together, or
    each by itself: there is nothing to tell apart.
    """

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, of_clusters, of_labels = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    units = table.sum()
    every = units * (units - 1) / 2
    expected = of_clusters * of_labels / every if every else 0.0
    most = (of_clusters + of_labels) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)
