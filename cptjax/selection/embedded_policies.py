"""Policies that compare the embeddings of units: SemDeDup, SSL prototypes, D4, and what is nearest to a target."""

import dataclasses
from typing import Any

import numpy as np

from cptjax.configuration.values import whole_number
from cptjax.data.sources import Where, as_plain, content_identity, find_source
from cptjax.errors import ConfigurationError
from cptjax.selection.blocks import Blocks
from cptjax.selection.budgets import Budget, smallest, threshold_of
from cptjax.selection.corpus import Corpus
from cptjax.selection.d4 import D4Settings, blocked, d4
from cptjax.selection.embedders import Embedder
from cptjax.selection.nearest import nearest_targets
from cptjax.selection.policies import check_budget
from cptjax.selection.prototypes import Cluster, describe_clusters, duplicate_driven
from cptjax.selection.selected import Evidence, Reason, Selection, selection_of
from cptjax.selection.semantic_duplicates import cluster_order, greedy_duplicates
from cptjax.selection.shards import Shards

RULES = ("official", "greedy")
SEMANTIC = Reason("semantic_duplicates", "its embedding is nearly that of {}, which stands before it in the cluster")
TYPICAL = Reason("prototypes", "among the most typical of its cluster")


@dataclasses.dataclass(frozen=True)
class D4:
    """SemDeDup, then SSL prototypes in new clusters (d4.py)."""

    embedder: Embedder
    settings: D4Settings

    @property
    def share(self) -> float:
        """R."""
        return self.settings.share

    def made_of(self) -> dict[str, Any]:
        return {"D4": {**dataclasses.asdict(self.settings), "embedder": self.embedder.made_of()}}

    def choose(self, corpus: Corpus) -> Selection:
        settings = self.settings
        check_budget(Budget(share=settings.share, of=settings.of), corpus)
        check_clusters(settings, len(corpus))
        points = corpus.vectors(self.embedder)
        found = d4(points, corpus.sizes, settings, corpus.mesh(), corpus.stages.keep)
        score = np.where(found.duplicates, found.blocking.similarity, found.typicality)
        reason = np.where(found.duplicates, 0, 1)
        clusters = np.where(found.duplicates, found.labels, found.labels_after)
        said = [
            f"semantic duplicates: {int(found.duplicates.sum()):,} units above a cosine similarity of {1 - found.epsilon:.4f}",
            f"prototypes: {int(found.typical.sum()):,} units of those left",
            *_of_clusters("before", found.clusters, found.duplicate_driven),
            *_of_clusters("after", found.clusters_after, found.duplicate_driven_after),
        ]
        evidence = Evidence(
            "D4",
            np.arange(len(corpus)),
            points,
            found.labels_after,
            found.typicality,
            heading="Clusters that duplicates or a template seem to have made, the largest",
            rows=cluster_rows(found.duplicate_driven, found.duplicate_driven_after),
        )
        return Selection(
            found.kept,
            np.where(found.kept, -1, reason).astype(np.int8),
            np.where(found.duplicates, found.blocking.blocker, -1),
            clusters.astype(np.int64),
            score.astype(np.float64),
            (SEMANTIC, TYPICAL),
            tuple(said),
            (evidence,),
        )


@dataclasses.dataclass(frozen=True)
class SemDeDup:
    """Semantic deduplication alone: by a share that stays, which is hit exactly, or by an epsilon.

    Attributes:
        share: what stays, of tokens or units (`of`); None: `epsilon` says what goes.
        epsilon: a unit goes whose cosine similarity to an earlier one of its cluster is above 1 - epsilon.
        rule: "official": whatever is earlier blocks; "greedy": only what stays does, which needs an epsilon.
        clusters, keep, neighbours, start, iterations, seed: as D4Settings has them.
    """

    embedder: Embedder
    share: float | None = None
    epsilon: float | None = None
    of: str = "tokens"
    rule: str = "official"
    clusters: int = 11_000
    keep: str = "hard"
    neighbours: int = 0
    start: str = "k-means++"
    iterations: int = 100
    seed: int = 0

    def __post_init__(self):
        for name in ("clusters", "neighbours", "iterations", "seed"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name.upper()))
        if self.rule not in RULES:
            raise ConfigurationError(f"RULE = {self.rule!r}: one of {', '.join(RULES)}.")
        if (self.share is None) == (self.epsilon is None):
            raise ConfigurationError(
                f"SemDeDup is told R_DEDUP or EPSILON, one of them; they are {self.share} and {self.epsilon}."
            )
        if self.rule == "greedy" and (self.epsilon is None or self.neighbours):
            raise ConfigurationError("RULE = 'greedy' needs EPSILON (what blocks depends on it), and no NEIGHBOURS.")
        if self.epsilon is not None and not 0 <= self.epsilon <= 2:
            raise ConfigurationError(
                f"EPSILON = {self.epsilon!r}: cosines lie between -1 and 1, so it does between 0 and 2."
            )

    def made_of(self) -> dict[str, Any]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "embedder"}
        return {"SemDeDup": {**fields, "embedder": self.embedder.made_of()}}

    def choose(self, corpus: Corpus) -> Selection:
        if self.share is not None:
            check_budget(Budget(share=self.share, of=self.of), corpus)
        settings = D4Settings(
            0.5,
            1.0,
            self.clusters,
            self.of,
            True,
            self.keep,
            self.start,
            self.iterations,
            self.seed,
            neighbours=self.neighbours,
        )
        check_clusters(settings, len(corpus))
        points = corpus.vectors(self.embedder)
        labels, distances, blocking = blocked(points, settings, corpus.mesh(), corpus.stages.keep)
        if self.rule == "greedy":
            order = cluster_order(labels, distances, self.keep, self.seed)
            blocking = greedy_duplicates(points, labels, order, self.epsilon)
        if self.share is None:
            kept = blocking.kept(self.epsilon)
        else:
            kept = smallest(blocking.similarity, corpus.sizes, Budget(share=self.share, of=self.of))
        clusters = describe_clusters(labels, distances)
        said = [
            f"semantic duplicates: {int((~kept).sum()):,} units above a cosine similarity of "
            f"{threshold_of(blocking.similarity, kept):.4f}",
            *_of_clusters("all", clusters, duplicate_driven(clusters)),
        ]
        place = np.full(len(corpus), np.nan)
        evidence = Evidence("SemDeDup", np.arange(len(corpus)), points, labels, place)
        instead = np.where(kept, -1, blocking.blocker)
        return selection_of(kept, SEMANTIC, instead, labels, blocking.similarity, said, [evidence])


@dataclasses.dataclass(frozen=True)
class Nearest:
    """What is nearest to a set of target texts: the reuse paper's document mining (arXiv 2407.07263, section 3).

    targets: a source; its documents are embedded whole.
    """

    embedder: Embedder
    targets: Where
    budget: Budget

    @property
    def share(self) -> float | None:
        """What is kept."""
        return self.budget.share

    def made_of(self) -> dict[str, Any]:
        targets = {"where": as_plain(self.targets), "files": content_identity(find_source("TARGET", self.targets))}
        own = {"budget": dataclasses.asdict(self.budget), "targets": targets}
        return {"Nearest": {**own, "embedder": self.embedder.made_of()}}

    def choose(self, corpus: Corpus) -> Selection:
        check_budget(self.budget, corpus)
        targets = corpus.beside("TARGET", self.targets, self.embedder)
        both = corpus.vectors(self.embedder, targets)
        theirs = both[len(corpus) : len(both)]

        def near():
            blocks = Blocks(both, chosen=np.arange(len(corpus)))
            similarity, target = nearest_targets(blocks, theirs)
            return {"similarity": similarity, "target": target}

        found = corpus.stages.keep("nearest", near)
        kept = smallest(-found["similarity"].astype(np.float64), corpus.sizes, self.budget)
        said = [
            f"nearest to {len(targets):,} targets: kept from a cosine similarity of "
            f"{float(found['similarity'][kept].min(initial=1.0)):.4f} on"
        ]
        reason = Reason("nearest", "farther from every target than what is kept")
        evidence = Evidence("Nearest to the targets", np.arange(len(corpus)), _Some(both, len(corpus)))
        return selection_of(kept, reason, score=found["similarity"], found=said, evidence=[evidence])


class _Some:
    """The first rows of an array."""

    def __init__(self, points: Shards, rows: int):
        self._points, self.shape = points, (rows, points.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, wanted: np.ndarray) -> np.ndarray:
        return self._points[wanted]


def check_clusters(settings: D4Settings, units: int) -> None:
    """Refuses more clusters than units.

    Raises:
        ConfigurationError: says how many are usual.
    """
    if not 1 <= settings.clusters <= units:
        raise ConfigurationError(
            f"CLUSTERS = {settings.clusters:,} of {units:,} units: from 1 to as many as there are units.\n"
            f"  The paper has 11,000 for millions; about the square root of the units, {round(units**0.5):,}, is a usual choice."
        )


def _of_clusters(which: str, clusters: list[Cluster], driven: list[Cluster]) -> list[str]:
    units = sum(each.units for each in driven)
    said = (
        f"clusters {which}: {len(clusters):,} hold a unit; {len(driven):,} of them, with {units:,} units, seem to be made by"
        " duplicates or a template"
    )
    if 2 * len(driven) > len(clusters):  # a model's states may all point in nearly one direction
        said += " (more than half: all embeddings lie close together here, and the sign says nothing)"
    return [said]


def cluster_rows(before: list[Cluster], after: list[Cluster]) -> tuple[tuple[str, ...], ...]:
    """The duplicate-driven clusters as a table, the largest first."""
    rows = [
        (when, str(each.label), f"{each.units:,}", f"{each.distance:.4f}", f"{each.spread:.4f}")
        for when, found in (("before", before), ("after", after))
        for each in sorted(found, key=lambda each: (-each.units, each.label))[:10]
    ]
    return (("clustering", "cluster", "units", "mean distance", "spread"), *rows) if rows else ()
