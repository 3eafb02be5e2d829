"""Many robust least-squares fits side by side: Huber's loss on the logarithm of the loss, in float64, on the CPU.

Every fit of this package is one row of the same batch: starting points, resamples of a bootstrap (rows of weights), points of
a profile (rows of fixed parameters). A law has ten parameters at most, so that the whole Gauss-Newton matrix is at hand, and
its valleys are narrow (a scale against its exponent: correlations of 0.999), which is what that matrix is for and what
gradients alone go along slowly.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cptjax.scaling.law import Law

DELTA = 1e-3  # Huber's threshold on the log-loss (arXiv 2203.15556, section 3.3)
_BLOCK = 64  # fits side by side
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-9, 1e12
_STALLED = 16  # steps in a row without a gain, each four times as careful, after which a fit has arrived
_GAIN = 1e-12  # relative; less is none
_FLAT = 1e-30  # of a squared derivative


@contextlib.contextmanager
def float64_on_cpu() -> Iterator[None]:
    """Inside, JAX computes in float64 and on the CPU, whatever the program around it does."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def huber(residuals: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """r**2 / 2 up to DELTA, then DELTA * (|r| - DELTA / 2)."""
    size = jnp.abs(residuals)
    return jnp.where(size <= DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA))


def solve(
    law: Law,
    columns: Mapping[str, np.ndarray],
    log_loss: Float[np.ndarray, " runs"],
    starts: Float[np.ndarray, "fits parameters"],
    weights: Float[np.ndarray, "fits runs"],
    free: Bool[np.ndarray, "fits parameters"],
    bounds: Float[np.ndarray, "parameters 2"],
    steps: int,
) -> tuple[Float[np.ndarray, "fits parameters"], Float[np.ndarray, " fits"]]:
    """Minimises sum(weights * huber(predicted - measured log-loss)) from each start, within the bounds.

    Args:
        columns: the runs' columns by name, float64 [runs].
        weights: of each run in each fit; one row serves all fits. A run of weight 0 is not there.
        free: which parameters each fit may move; one row serves all fits.
        bounds: of what is fitted, lowest and highest.
        steps: damped Gauss-Newton steps; a fit that has arrived stays.

    Returns:
        What was fitted and the objective of each; an objective is inf where the start itself is not finite.
    """
    count = len(starts)
    weights, free = (np.broadcast_to(rows, (count, np.shape(rows)[-1])) for rows in (weights, free))
    found, objectives = [], []
    with float64_on_cpu():
        arrays = {name: jnp.asarray(columns[name], jnp.float64) for name in law.columns}
        for first in range(0, count, _BLOCK):
            chosen = np.minimum(np.arange(first, first + _BLOCK), count - 1)  # one shape: one compilation for all fits
            block = (starts[chosen], weights[chosen], free[chosen])
            x, objective = _solve(law, arrays, jnp.asarray(log_loss), jnp.asarray(bounds), steps, *block)
            found.append(np.asarray(x))
            objectives.append(np.asarray(objective))
    return np.concatenate(found)[:count], np.concatenate(objectives)[:count]


@functools.partial(jax.jit, static_argnums=0)
def _solve(law, columns, log_loss, bounds, steps, starts, weights, free):
    return jax.vmap(functools.partial(_descend, law, columns, log_loss, bounds, steps))(starts, weights, free)


def _descend(law, columns, log_loss, bounds, steps, start, weights, free):
    """Levenberg's and Marquardt's method with Huber's weights: each step minimises a quadratic that lies above the objective."""
    low, high = bounds[:, 0], bounds[:, 1]

    def residuals(x):
        return law.log_loss(x, columns) - log_loss

    def objective(x):
        value = jnp.sum(jnp.where(weights > 0, weights * huber(residuals(x)), 0.0))
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    def step(state):
        x, value, damping, stalled, done = state
        r, slopes = residuals(x), jax.jacfwd(residuals)(x)
        curvature = weights * jnp.minimum(1.0, DELTA / jnp.maximum(jnp.abs(r), DELTA * 1e-3))
        gradient = slopes.T @ (curvature * r)
        # A parameter that its bound holds back is left out of the step, like one that is not free.
        held = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
        moves = free & ~held & jnp.isfinite(gradient)
        matrix = slopes.T @ (curvature[:, None] * slopes)
        matrix = jnp.where(moves[:, None] & moves[None, :], matrix, 0.0)
        width = jnp.sqrt(jnp.maximum(jnp.diag(matrix), _FLAT))
        scaled = matrix / width[:, None] / width[None, :]
        scaled = scaled - jnp.diag(jnp.diag(scaled)) + jnp.eye(len(x)) * (1.0 + damping)
        change = jnp.linalg.solve(scaled, jnp.where(moves, -gradient, 0.0) / width) / width
        tried = jnp.clip(x + jnp.where(moves & jnp.isfinite(change), change, 0.0), low, high)
        reached = objective(tried)
        better = reached < value
        stalled = jnp.where(reached < value * (1 - _GAIN), 0, stalled + 1)
        x, value = jnp.where(better, tried, x), jnp.where(better, reached, value)
        damping = jnp.clip(jnp.where(better, damping * 0.2, damping * 4.0), _LEAST_DAMPING, _MOST_DAMPING)
        return x, value, damping, stalled, done + 1

    def goes_on(state):
        return (state[3] < _STALLED) & (state[4] < steps)

    start = jnp.clip(start, low, high)
    first = (start, objective(start), jnp.asarray(_FIRST_DAMPING), 0, 0)
    x, value, *_ = jax.lax.while_loop(goes_on, step, first)
    return x, value
