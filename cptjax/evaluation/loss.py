"""Loss and bits per byte of a source's held-out rows."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, token_losses
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import Rows, place_rows


@dataclasses.dataclass(frozen=True)
class SourceLoss:
    """What a model makes of one source: `nats` over `tokens` targets that spell `bytes` bytes of raw UTF-8 text.

    Every token of a document but its start is a target exactly once, EOS included, each seen with the context its packed
    row gives it (at most the row's length; a document cut at a row's end goes on with one token of context): PROTOCOL.md 9.
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of raw text: comparable between tokenizers."""
        return self.nats / math.log(2) / self.bytes


def build_row_nats(config: DecoderConfig, numerics: Numerics) -> Callable[[Params, dict], jax.Array]:
    """The jitted function (params, batch) -> float32 [rows, 2]: each row's weighted nats and its weight."""

    def row_nats(params, batch):
        nats = token_losses(params, config, numerics, batch) * batch["weights"]
        return jnp.stack([nats.sum(axis=-1), batch["weights"].sum(axis=-1)], axis=-1)

    return jax.jit(row_nats)


@functools.lru_cache(maxsize=8)
def build_token_nats(config: DecoderConfig, numerics: Numerics) -> Callable[[Params, dict], jax.Array]:
    """The jitted function (params, batch) -> float32 [rows, length]: each target's weighted nats; one for each model."""
    return jax.jit(lambda params, batch: token_losses(params, config, numerics, batch) * batch["weights"])


def evaluate_rows(
    row_nats: Callable[[Params, dict], jax.Array],
    params: Params,
    read: Callable[[np.ndarray], Rows],
    rows: int,
    text_bytes: int,
    batch_rows: int,
    mesh: Mesh,
) -> SourceLoss:
    """Scores all `rows` rows of a held-out split; rows are added up in float64 on the host, in order.

    Args:
        read: row indices -> their arrays, [n, length] each.
        text_bytes: raw UTF-8 bytes of the split's documents.
    """
    summed = np.concatenate(list(scored_batches(row_nats, params, read, rows, batch_rows, mesh))).sum(0)
    return SourceLoss(nats=float(summed[0]), tokens=int(summed[1]), bytes=text_bytes)


def scored_batches(
    score: Callable[[Params, dict], jax.Array],
    params: Params,
    read: Callable[[np.ndarray], Rows],
    rows: int,
    batch_rows: int,
    mesh: Mesh,
) -> Iterator[np.ndarray]:
    """`score(params, batch)` for all `rows` rows in order, `batch_rows` at a time: float64 [rows of the batch, ...] each.

    While one batch is being scored the one before is handed out, and never are more than two under way.
    """
    before = None
    for first in range(0, rows, batch_rows):

        def part(wanted: slice, first: int = first) -> Rows:
            # The last batch keeps its shape: it repeats the last row with weight 0.
            indices = np.arange(first + wanted.start, first + wanted.stop)
            batch = dict(read(np.minimum(indices, rows - 1)))
            batch["weights"] = batch["weights"] * (indices < rows)[:, None].astype(np.float32)
            return batch

        scored = score(params, place_rows(part, batch_rows, mesh))
        if before is not None:
            yield np.asarray(everywhere(before), np.float64)
        before = scored
    if before is not None:
        yield np.asarray(everywhere(before), np.float64)[: rows - first]


def everywhere(x: jax.Array) -> jax.Array | np.ndarray:
    """The whole array in this process, also when other processes hold parts of it."""
    if x.is_fully_addressable:
        return x
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(x, tiled=True)
