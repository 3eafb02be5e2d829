"""Where k-means begins: at random points, or at points that are far from one another (k-means++)."""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cptjax.errors import ConfigurationError
from cptjax.selection.blocks import HIGHEST, rows_at, unit

STARTS = ("random", "k-means++")
SAMPLE = 1 << 18  # points that k-means++ looks at, drawn at random where there are more
_ROUNDING = 2e-6  # of the squares of two vectors' lengths: closer than that float32 does not tell them apart
_ROW = 512


def start_centroids(
    points: Iterable[np.ndarray],
    count: int,
    clusters: int,
    start: str | Float[np.ndarray, "clusters dim"],
    spherical: bool,
    seed: int,
) -> Float[Array, "clusters dim"]:
    """The first centroids, float32; of length 1 if spherical. They do not depend on how the points are cut into blocks.

    Raises:
        ConfigurationError: an unknown start, or centroids of another shape.
    """
    generator = np.random.default_rng(seed)
    if not isinstance(start, str):
        dim = next(iter(points)).shape[-1]
        if np.shape(start) != (clusters, dim):
            raise ConfigurationError(f"a start of shape {np.shape(start)} for {clusters} clusters of {dim} dimensions.")
        rows = jnp.asarray(start, jnp.float32)
    elif start == "random":
        rows = jnp.asarray(rows_at(points, generator.choice(count, clusters, replace=False)))
    elif start == "k-means++":
        sample = np.arange(count)
        if count > max(SAMPLE, clusters):
            sample = np.sort(generator.choice(count, max(SAMPLE, clusters), replace=False))
        rows = jnp.asarray(rows_at(points, sample))
        rows = rows[spread_points(unit(rows) if spherical else rows, clusters, jax.random.key(seed))]
    else:
        raise ConfigurationError(f"the start of k-means is {start!r}; it is one of {', '.join(STARTS)}, or centroids.")
    return unit(rows) if spherical else rows


@functools.partial(jax.jit, static_argnames="clusters")
def spread_points(points: Float[Array, "points dim"], clusters: int, key: jax.Array) -> Int[Array, " clusters"]:
    """Indices of points: the first as likely as any, each next one by its squared distance to the nearest so far.

    Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding". Copies of chosen points, and what
    rounding cannot tell from them, have no chance while there are other points.
    """
    squares = jnp.sum(points * points, axis=-1)

    def to(chosen):
        both = squares + squares[chosen]
        far = both - 2 * jnp.matmul(points, points[chosen], precision=HIGHEST)
        return jnp.where(far <= _ROUNDING * both, 0, far)

    def choose(i, state):
        chosen, nearest = state
        following = drawn_by_weight(nearest, jax.random.fold_in(key, i))
        return chosen.at[i].set(following), jnp.minimum(nearest, to(following))

    first = jax.random.randint(key, (), 0, len(points))
    chosen = jnp.zeros(clusters, jnp.int32).at[0].set(first)
    return jax.lax.fori_loop(1, clusters, choose, (chosen, to(first)))[0]


def drawn_by_weight(weights: Float[Array, " points"], key: jax.Array) -> Int[Array, ""]:
    """One index, each as likely as its weight is of all: first a row of _ROW weights by their sum, then one of that row.

    Two numbers are drawn, however many weights there are; running sums of a few hundred lose no small weight to rounding.
    """
    rows = jnp.pad(weights, (0, -len(weights) % _ROW)).reshape(-1, _ROW)
    of_row, in_row = jax.random.uniform(key, (2,))
    row = _first_beyond(jnp.sum(rows, axis=1), of_row)
    return (row * _ROW + _first_beyond(rows[row], in_row)).astype(jnp.int32)


def _first_beyond(weights: Float[Array, " some"], share: Float[Array, ""]) -> Int[Array, ""]:
    """The first index at which the running sum of the weights exceeds this share of them; 0 where there is no weight."""
    running = jnp.cumsum(weights)
    return jnp.argmax(running > share * running[-1])
