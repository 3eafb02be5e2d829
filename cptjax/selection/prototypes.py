"""SSL prototypes: how typical each unit is of its cluster, the typical ones to be dropped; and clusters that duplicates made.

Sorscher et al. 2022, "Beyond neural scaling laws", as D4 uses it (arXiv 2308.12284): what is close to its centroid goes first.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

SPREAD = 0.03  # of a duplicate-driven cluster's distances, at most. D4 names this order of magnitude; not verified


def typicality(
    labels: Int[np.ndarray, " units"], distances: Float[np.ndarray, " units"], sizes: Int[np.ndarray, " units"]
) -> Float[np.ndarray, " units"]:
    """How far along its cluster each unit stands, between 0 (the farthest from the centroid) and 1 (the closest).

    The size of what stands before the unit and of half of itself, over the cluster's. Keeping the smallest takes, to within a
    unit, the same share of every cluster, and of all together any budget exactly: of tokens if `sizes` are in tokens, of units
    if they are ones. Ties in distance by index. A unit without size stands where it would stand with one.
    """
    order = np.lexsort((-distances, labels))
    sizes = np.asarray(sizes, np.float64)[order]
    through = np.cumsum(sizes)
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    before = (through - sizes)[first]
    whole = through[first + counts - 1] - before
    place = np.empty(len(labels))
    place[order] = (through - sizes / 2 - np.repeat(before, counts)) / np.repeat(np.maximum(whole, 1), counts)
    return place


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster as a report shows it. distance, spread: mean and standard deviation of its distances to the centroid."""

    label: int
    units: int
    distance: float
    spread: float


def describe_clusters(labels: Int[np.ndarray, " units"], distances: Float[np.ndarray, " units"]) -> list[Cluster]:
    """Every cluster that holds a unit, by label. Labels below 0 stand for none."""
    held = np.flatnonzero(labels >= 0)
    found, of, counts = np.unique(labels[held], return_inverse=True, return_counts=True)
    near = distances[held].astype(np.float64)
    mean = np.bincount(of, near, len(found)) / np.maximum(counts, 1)
    spread = np.sqrt(np.bincount(of, (near - mean[of]) ** 2, len(found)) / np.maximum(counts, 1))
    facts = zip(found.tolist(), counts.tolist(), mean.tolist(), spread.tolist(), strict=True)
    return [Cluster(*each) for each in facts]


def duplicate_driven(clusters: list[Cluster], spread: float = SPREAD, least: int = 3) -> list[Cluster]:
    """The clusters, of `least` units or more, whose distances to the centroid hardly differ: copies or a template made them.

    A sign, not a proof: units that lie around their centroid at one distance look the same. Their duplicates tell.
    """
    return [each for each in clusters if each.units >= least and each.spread < spread]
