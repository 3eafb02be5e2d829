"""D4: drop semantic duplicates, cluster what is left, drop what is most typical there (Tirumala et al. 2023, arXiv 2308.12284).

R = R_dedup * R_proto: of the corpus the first stage keeps R_dedup, and the second R_proto of that.
"""

import dataclasses

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.selection.blocks import ROWS, Blocks
from cptjax.selection.budgets import Budget, smallest, threshold_of
from cptjax.selection.kmeans import kmeans
from cptjax.selection.neighbouring_duplicates import with_neighbours
from cptjax.selection.prototypes import Cluster, describe_clusters, duplicate_driven, typicality
from cptjax.selection.semantic_duplicates import Blocking, cluster_order, semantic_duplicates
from cptjax.selection.stages import Arrays, Keep, keep_nothing

CLUSTERS, DUPLICATES, AFTER = "clusters", "semantic_duplicates", "clusters_after"  # its stages


@dataclasses.dataclass(frozen=True)
class D4Settings:
    """What D4 is told.

    Attributes:
        share: R, of all units or tokens.
        dedup_share: R_dedup (the paper's is 0.75), at least R; 1: no semantic deduplication, prototypes alone. With a `share`
            as large as it, nothing is left to the second stage: SemDeDup alone.
        clusters: in both clusterings (the paper's: 11,000), at most as many as there are units.
        of: "tokens" or "units", what the shares are of.
        recluster: False: the second stage takes the first one's clusters. (The paper finds it worse.)
        keep: which of several semantic duplicates stays (semantic_duplicates.cluster_order).
        neighbours: semantic duplicates are looked for in so many of the nearest clusters too; 0: as the paper does.
        start, iterations, seed: of k-means.
        rows: points that k-means reads at a time for each device.
    """

    share: float
    dedup_share: float = 0.75
    clusters: int = 11_000
    of: str = "tokens"
    recluster: bool = True
    keep: str = "hard"
    start: str = "k-means++"
    iterations: int = 100
    seed: int = 0
    rows: int = ROWS
    neighbours: int = 0

    def __post_init__(self):
        for name in ("clusters", "iterations", "seed", "rows", "neighbours"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name.upper()))
        if not 0 < self.share <= self.dedup_share <= 1:
            raise ConfigurationError(
                f"D4 is to keep {self.share:g} of the corpus, and {self.dedup_share:g} after semantic deduplication.\n"
                "  The share lies above 0 and is at most the dedup_share, which is at most 1: R = R_dedup * R_proto."
            )


@dataclasses.dataclass(frozen=True)
class D4Selection:
    """What D4 keeps and why the rest went.

    Attributes:
        kept, duplicates, typical: bool [units]; each unit is one of them: kept, dropped by the first stage, by the second.
        blocking: what blocks each unit, and how similar it is.
        epsilon: the first stage's: a unit stays whose similarity is at most 1 - epsilon; of those that tie there, the first.
        typicality: float64 [units], place in its cluster, from atypical to typical; NaN for duplicates.
        labels, labels_after: int32 [units], clusters of the first and the second stage; there, -1 for duplicates.
        clusters, clusters_after: the same clusters described.
        duplicate_driven, duplicate_driven_after: those of them that copies or a template seem to have made.
    """

    kept: np.ndarray
    duplicates: np.ndarray
    typical: np.ndarray
    blocking: Blocking
    epsilon: float
    typicality: np.ndarray
    labels: np.ndarray
    labels_after: np.ndarray
    clusters: list[Cluster]
    clusters_after: list[Cluster]
    duplicate_driven: list[Cluster]
    duplicate_driven_after: list[Cluster]


def d4(
    points: Float[np.ndarray, "units dim"],
    sizes: Int[np.ndarray, " units"],
    settings: D4Settings,
    mesh: Mesh | None = None,
    stages: Keep = keep_nothing,
) -> D4Selection:
    """Selects from units with these embeddings (an array or memmap of any float type) and these sizes in tokens.

    Args:
        stages: keeps the result of each stage, by name: CLUSTERS, DUPLICATES, AFTER.

    Raises:
        ConfigurationError: more clusters than units, or settings that are none.
        CptjaxError: an embedding is not finite.
    """
    # --- Semantic duplicates, within the clusters of all ---
    labels, distances, blocking = blocked(points, settings, mesh, stages)
    left = smallest(blocking.similarity, sizes, Budget(share=settings.dedup_share, of=settings.of))

    # --- What is most typical, within the clusters of what is left ---
    labels_after, distances_after = np.where(left, labels, -1), np.where(left, distances, np.nan)
    if settings.recluster and left.any():
        found = stages(AFTER, lambda: _clustered(points, np.flatnonzero(left), settings, mesh), together=True)
        labels_after[left], distances_after[left] = found["labels"], found["distances"]
    budget = Budget(share=settings.share, of=settings.of)
    place = np.full(len(sizes), np.nan)
    place[left] = typicality(labels_after[left], distances_after[left], budget.costs(sizes)[left])
    kept = smallest(place, sizes, budget, eligible=left)

    clusters, after = describe_clusters(labels, distances), describe_clusters(labels_after, distances_after)
    return D4Selection(
        kept,
        ~left,
        left & ~kept,
        blocking,
        1 - threshold_of(blocking.similarity, left),
        place,
        labels,
        labels_after,
        clusters,
        after,
        duplicate_driven(clusters),
        duplicate_driven(after),
    )


def blocked(
    points: Float[np.ndarray, "units dim"], settings: D4Settings, mesh: Mesh | None, stages: Keep
) -> tuple[np.ndarray, np.ndarray, Blocking]:
    """SemDeDup's part: the cluster of each unit, its distance to the centroid, and what blocks it."""
    found = stages(CLUSTERS, lambda: _clustered(points, None, settings, mesh), together=True)
    labels, distances, centroids = found["labels"], found["distances"], found["centroids"]

    def duplicates() -> Arrays:
        order = cluster_order(labels, distances, settings.keep, settings.seed)
        blocking = semantic_duplicates(points, labels, order)
        if settings.neighbours:
            asked = (settings.keep, settings.seed, settings.neighbours)
            blocking = with_neighbours(blocking, points, labels, distances, centroids, *asked)
        return {"similarity": blocking.similarity, "blocker": blocking.blocker}

    return labels, distances, Blocking(**stages(DUPLICATES, duplicates))


def _clustered(points: np.ndarray, chosen: np.ndarray | None, settings: D4Settings, mesh: Mesh | None) -> Arrays:
    """Labels and distances of the chosen points. The second clustering may be of fewer points than clusters were asked for."""
    clusters = settings.clusters if chosen is None else min(settings.clusters, len(chosen))
    blocks = Blocks(points, settings.rows * (1 if mesh is None else mesh.size), chosen)
    found = kmeans(blocks, clusters, settings.start, settings.iterations, seed=settings.seed, mesh=mesh)
    objective = np.array(found.objective)
    return {"labels": found.labels, "distances": found.distances, "centroids": found.centroids, "objective": objective}
