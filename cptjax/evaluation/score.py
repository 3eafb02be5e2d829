"""Log-probabilities of given token sequences, in batches of few shapes so that little is compiled."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from cptjax.evaluation.loss import everywhere
from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, token_losses
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows

BATCH_TOKENS = 16384  # positions scored at once on a mesh that does not cut the batch
WINDOW = 1024  # sequences sorted by length at a time
SHORTEST = 32


def score_sequences(
    params: Params, config: DecoderConfig, numerics: Numerics, mesh: Mesh, sequences: Iterator[Sequence[int]]
) -> Iterator[np.ndarray]:
    """For each sequence of n token ids its n - 1 log-probabilities (float32, natural), in order.

    Entry i is log p(sequence[i + 1] | sequence[:i + 1]). Lengths are padded to powers of two, and memory is bounded by
    `BATCH_TOKENS` positions and `WINDOW` sequences, whatever comes in.
    """
    nats = jax.jit(lambda params, batch: token_losses(params, config, numerics, batch))
    window: list[Sequence[int]] = []
    for sequence in sequences:
        window.append(sequence)
        if len(window) == WINDOW:
            yield from _score_window(nats, params, config, window, mesh)
            window = []
    yield from _score_window(nats, params, config, window, mesh)


def _score_window(
    nats, params: Params, config: DecoderConfig, window: list[Sequence[int]], mesh: Mesh
) -> list[np.ndarray]:
    results = [np.zeros(0, np.float32)] * len(window)
    buckets: dict[int, list[int]] = {}
    for index, sequence in enumerate(window):
        if len(sequence) > 1:
            buckets.setdefault(padded_length(len(sequence) - 1, config), []).append(index)
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    for length, members in sorted(buckets.items()):
        rows = ways * max(1, BATCH_TOKENS // (length * ways))
        for first in range(0, len(members), rows):
            part = members[first : first + rows]
            batch = sequence_batch([window[index] for index in part], rows, length)
            placed = place_rows(lambda wanted, batch=batch: {k: v[wanted] for k, v in batch.items()}, rows, mesh)
            scored = np.asarray(everywhere(nats(params, placed)), np.float32)
            for row, index in enumerate(part):
                results[index] = -scored[row, : len(window[index]) - 1]
    return results


def padded_length(positions: int, config: DecoderConfig) -> int:
    """The power of two that a sequence of this many positions is padded to, or all the learned positions that there are."""
    length = max(SHORTEST, 1 << (positions - 1).bit_length())
    return (
        min(length, config.maximum_length)
        if config.positions == "learned" and positions <= config.maximum_length
        else length
    )


def sequence_batch(sequences: Sequence[Sequence[int]], rows: int, length: int) -> dict[str, np.ndarray]:
    """Sequences of at most length + 1 tokens as a batch of `rows` rows, one each; what is padding is segment 0."""
    batch = {name: np.zeros((rows, length), np.int32) for name in ("inputs", "targets", "segment_ids", "positions")}
    for row, sequence in enumerate(sequences):
        n = len(sequence) - 1
        batch["inputs"][row, :n] = sequence[:-1]
        batch["targets"][row, :n] = sequence[1:]
        batch["segment_ids"][row, :n] = 1
        batch["positions"][row, :n] = np.arange(n)
    return batch
