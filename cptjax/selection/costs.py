"""What a selection has cost in floating-point operations, told from its stages."""

import numpy as np
from etils import epath

from cptjax.files import read_json
from cptjax.selection.corpus import EMBEDDINGS, FLOPS
from cptjax.selection.d4 import AFTER, CLUSTERS, DUPLICATES
from cptjax.selection.stages import Stages


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
