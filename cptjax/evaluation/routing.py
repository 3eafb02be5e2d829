"""Which expert of a system reads a text, and what it makes of it."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from cptjax.evaluation.loss import everywhere
from cptjax.evaluation.score import BATCH_TOKENS, score_sequences, sequence_batch
from cptjax.evaluation.systems import PrefixReader, System
from cptjax.models.config import DecoderConfig
from cptjax.models.layer_states import pooled
from cptjax.models.model import Params, hidden_states
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows


def embed_prefixes(
    reader: PrefixReader, params: Params, numerics: Numerics, mesh: Mesh, texts: Sequence[Sequence[int]]
) -> Float[np.ndarray, "texts width"]:
    """What a router sees of each text, float32.

    Args:
        params: the embedder's; texts: token ids, at least one each.
    """
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    rows = ways * max(1, BATCH_TOKENS // (reader.prefix * ways))
    embed, found = _build_embed(reader.config, numerics, reader.pooling), []
    with jax.set_mesh(mesh):
        for first in range(0, len(texts), rows):
            part = [[*text[: reader.prefix], 0] for text in texts[first : first + rows]]  # inputs are all but the last
            batch = sequence_batch(part, rows, reader.prefix)
            placed = place_rows(lambda wanted, batch=batch: {k: v[wanted] for k, v in batch.items()}, rows, mesh)
            found.append(np.asarray(everywhere(embed(params, placed)), np.float32)[: len(part)])
    return np.concatenate(found) if found else np.zeros((0, reader.config.hidden), np.float32)


def score_by_system(
    system: System, numerics: Numerics, mesh: Mesh, texts: Sequence[Sequence[int]], say: Callable[[str], None]
) -> list[tuple[int, list[float | None]]]:
    """Of each text the number of its expert, and what this gives to each token but the first; None to those that the router reads.

    One model is held at a time, and the scores of all texts.
    """
    params = system.embedder.load_parameters(mesh)
    chosen = nearest_expert(
        embed_prefixes(system.reader, params, numerics, mesh, texts), system.centroids, system.distance
    )
    del params
    found: list[tuple[int, list[float | None]]] = [(0, [])] * len(texts)
    for number, expert in enumerate(system.experts):
        own = np.flatnonzero(chosen == number).tolist()
        say(f"  expert {number}: {len(own):,} lines")
        if own:
            params = expert.load_parameters(mesh)
            given = (params, expert.config, numerics, mesh, (texts[i] for i in own))
            with jax.set_mesh(mesh):
                for i, scores in zip(own, score_sequences(*given), strict=True):
                    read = min(system.prefix - 1, len(scores))
                    found[i] = (number, [None] * read + [float(score) for score in scores[read:]])
            del params, given
    return found


def nearest_expert(
    vectors: Float[np.ndarray, "texts width"], centroids: Float[np.ndarray, "experts width"], distance: str
) -> Int[np.ndarray, " texts"]:
    """The number of the nearest centroid, the first of equally near ones."""
    vectors = vectors.astype(np.float64)
    if distance == "cosine":
        vectors, centroids = (
            x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (vectors, centroids)
        )
        return np.argmax(vectors @ centroids.T, axis=1)
    squared = (centroids**2).sum(axis=1) - 2 * vectors @ centroids.T  # less each vector's own square, the same for all
    return np.argmin(squared, axis=1)


def centroid_of(vectors: Float[np.ndarray, "texts width"], distance: str) -> Float[np.ndarray, " width"]:
    """Where the texts of one expert are: the mean of their vectors, of their directions where the distance is by cosine.

    Raises:
        ValueError: there is no text.
    """
    if not len(vectors):
        raise ValueError("there is no text to say where an expert is")
    vectors = vectors.astype(np.float64)
    if distance == "cosine":
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return vectors.mean(axis=0)


@functools.lru_cache(maxsize=8)
def _build_embed(config: DecoderConfig, numerics: Numerics, pooling: str) -> Callable[[Params, dict], jax.Array]:
    def embed(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        given = (batch["inputs"], batch["positions"], batch["segment_ids"])
        return pooled(hidden_states(params, config, numerics, *given), batch["segment_ids"], pooling)

    return jax.jit(embed)
