"""What a selection has cost in floating-point operations, told from its stages and its embedder's lineage."""

from typing import Any

import numpy as np
from etils import epath

from cptjax.files import read_json
from cptjax.selection.corpus import EMBEDDINGS, FLOPS
from cptjax.selection.d4 import AFTER, CLUSTERS, DUPLICATES
from cptjax.selection.embedders import Embedder
from cptjax.selection.stages import Stages


def selection_flops(stages: Stages, embedder: Embedder | None) -> dict[str, Any]:
    """What selection.json keeps: `embedding`, `comparing`, and what made the embedder; `embedder` is None without a checkpoint.

    Of the embedder: `checkpoint`, what its weights are known by; `training`, the counted FLOPs of the runs that its lineage has;
    `base`, the Hugging Face folder that those began with, whose own FLOPs nobody knows, or None.
    """
    made = None
    if embedder is not None and not embedder.is_control:
        opened = embedder.checkpoint
        known = opened.lineage
        made = {"checkpoint": opened.identity, "training": float(known.flops), "base": known.origin.path or None}
    return {"embedding": embedding_flops(stages), "comparing": comparing_flops(stages), "embedder": made}


def embedding_flops(stages: Stages) -> float:
    """The operations of what was embedded in these stages and their parts, counted as it was; 0 where a control was asked."""
    files = [folder / EMBEDDINGS / FLOPS for folder in _folders(stages)]
    return float(sum(sum(read_json(path).values()) for path in files if path.exists()))


def comparing_flops(stages: Stages) -> float:
    """Of clustering and of looking for semantic duplicates: the matrix products, without padding.

    A pass of k-means is 2 points x clusters x dim; its start by k-means++ is about one more. Duplicates are looked for by
    dim x (the sum of the squares of the clusters' sizes), each pair once. NEIGHBOURS' own comparisons are not counted.
    """
    total = 0.0
    for folder in _folders(stages):
        for name in (CLUSTERS, AFTER):
            if (path := folder / f"{name}.npz").exists():
                labels, shape, passes = _clustering(path)
                total += 2.0 * len(labels) * shape[0] * shape[1] * (passes + 1)
                if name == CLUSTERS and (folder / f"{DUPLICATES}.npz").exists():
                    total += float((np.bincount(labels).astype(np.float64) ** 2).sum()) * shape[1]
    return total


def _folders(stages: Stages) -> list[epath.Path]:
    return [each.folder for each in (stages, *stages.parts().values())]


def _clustering(path: epath.Path) -> tuple[np.ndarray, tuple[int, ...], int]:
    """Labels, the centroids' shape, and how often the points were gone over."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
        return kept["labels"], kept["centroids"].shape, len(kept["objective"])
