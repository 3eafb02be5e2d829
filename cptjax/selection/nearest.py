"""How near each point is to a set of targets: what mines a corpus for texts like those of a task (arXiv 2407.07263)."""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cptjax.errors import ConfigurationError
from cptjax.selection.blocks import HIGHEST, padded, unit


def nearest_targets(
    points: Iterable[np.ndarray], targets: Float[np.ndarray, "targets dim"], block: int = 8192
) -> tuple[Float[np.ndarray, " points"], Int[np.ndarray, " points"]]:
    """Of each point the largest cosine similarity to a target, and that target (of several, the first).

    To mine, keep the smallest of the negative similarities (budgets.smallest). Memory: a block of points times a block of
    targets.

    Args:
        points: blocks [rows, dim] of any float type.
        targets: an array or memmap; `block` of them at a time.

    Raises:
        ConfigurationError: no targets.
    """
    if not len(targets):
        raise ConfigurationError("there is no target to be near to.")
    similarity, nearest, rows = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)], 0
    columns = min(block, len(targets))
    for each in points:
        rows = max(rows, len(each))
        vectors = jnp.asarray(padded(each, rows))
        best, which = jnp.full(rows, -2, jnp.float32), jnp.zeros(rows, jnp.int32)
        for first in range(0, len(targets), columns):
            part = targets[first : first + columns]
            best, which = _nearer(vectors, padded(part, columns), first, len(part), best, which)
        similarity.append(np.asarray(best)[: len(each)])
        nearest.append(np.asarray(which, np.int64)[: len(each)])
    return np.concatenate(similarity), np.concatenate(nearest)


@functools.partial(jax.jit, donate_argnames=("best", "which"))
def _nearer(
    points: Float[Array, "rows dim"],
    targets: Float[Array, "columns dim"],
    first: Int[Array, ""],
    held: Int[Array, ""],
    best: Float[Array, " rows"],
    which: Int[Array, " rows"],
) -> tuple[Float[Array, " rows"], Int[Array, " rows"]]:
    """`best` and `which` with the targets `first` and following, of which there are `held`."""
    found = jnp.clip(jnp.matmul(unit(points), unit(targets).T, precision=HIGHEST), -1, 1)
    found = jnp.where(jnp.arange(len(targets)) < held, found, -2)
    largest, at = jnp.max(found, axis=1), jnp.argmax(found, axis=1).astype(jnp.int32)
    return jnp.maximum(best, largest), jnp.where(largest > best, first + at, which)
