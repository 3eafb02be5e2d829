"""Vectors a block at a time: what the algorithms go over when there are more of them than fit in memory."""

import dataclasses
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cptjax.errors import ConfigurationError

ROWS = 2048  # in a block: as many again take a CPU's caches beyond their size, and k-means twice the time
HIGHEST = jax.lax.Precision.HIGHEST  # float32 means float32, on a TPU too


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The rows of an array (or memmap) of any float type, `rows` at a time; only those at `chosen`, in that order, if given.

    It can be gone over any number of times, which is all that the algorithms ask of their blocks.
    """

    points: np.ndarray
    rows: int = ROWS
    chosen: np.ndarray | None = None

    def __post_init__(self):
        if self.rows < 1:
            raise ConfigurationError(f"blocks of {self.rows} rows: a block has at least one.")

    def __iter__(self) -> Iterator[np.ndarray]:
        of = len(self.points) if self.chosen is None else len(self.chosen)
        for first in range(0, of, self.rows):
            part = slice(first, first + self.rows)
            yield self.points[part] if self.chosen is None else self.points[self.chosen[part]]


def count_rows(blocks: Iterable[np.ndarray]) -> int:
    """How many rows the blocks hold in all.

    Raises:
        ConfigurationError: they can be gone over only once.
    """
    if isinstance(blocks, Iterator):
        raise ConfigurationError(
            "the blocks of points are an iterator, which ends after one pass; clustering needs many.\n"
            "  Give an array in Blocks(array), or an object whose __iter__ begins anew."
        )
    return sum(map(len, blocks))


def rows_at(blocks: Iterable[np.ndarray], indices: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen dim"]:
    """The rows at these indices of all blocks together, in the order of `indices`, as float32."""
    order = np.argsort(indices, kind="stable")
    wanted, found, first = indices[order], [], 0
    for block in blocks:
        begin, end = np.searchsorted(wanted, [first, first + len(block)])
        if end > begin:
            found.append(np.asarray(block[wanted[begin:end] - first], np.float32))
        first += len(block)
    rows = np.concatenate(found)
    placed = np.empty_like(rows)
    placed[order] = rows
    return placed


def padded(block: np.ndarray, rows: int) -> np.ndarray:
    """The block with zeros below it up to `rows`, so that one compiled program serves blocks of all lengths."""
    if len(block) == rows:
        return np.asarray(block)
    return np.concatenate([block, np.zeros((rows - len(block), *block.shape[1:]), block.dtype)])


@jax.jit
def unit(vectors: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
    """The vectors in float32 and of length 1. One of zeros has no direction and stays as it is: its cosines are 0."""
    vectors = jnp.asarray(vectors, jnp.float32)
    # By the largest component first: the squares of float16's smallest numbers vanish, those of large ones overflow.
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True)
    vectors = vectors / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / jnp.where(length > 0, length, 1)
