"""How far a parameter can move before the runs object: the profile of the objective, all other parameters refitted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from cptjax.scaling.fitting import Fit
from cptjax.scaling.solver import DELTA, float64_on_cpu

_RISE = 3.841  # the 95% point of chi-squared with one degree of freedom
_STEPS = 120
_SINGULAR = (
    1e-12  # added to a correlation matrix, so that a direction in which nothing changes has a large error, not none
)
_FINEST = 200  # of a parameter's range: no standard error is taken for more
_MULTIPLES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0)  # of the standard error, on either side


@dataclasses.dataclass(frozen=True)
class Profile:
    """A parameter's profile interval; None on a side where nothing up to the parameter's bound fits worse."""

    low: float | None
    high: float | None

    @property
    def identified(self) -> bool:
        """Whether the runs hold the parameter from both sides."""
        return self.low is not None and self.high is not None


def profiles(fit: Fit) -> dict[str, Profile]:
    """The 95% profile-likelihood interval of each free parameter, by name.

    The objective is no likelihood: its rise is scaled by E[psi'] / E[psi**2] of Huber's loss (Ronchetti's likelihood-ratio
    test), with residuals taken as independent. Trunks and seeds are not in it: it tells what cannot be known from these
    runs at all, the bootstrap how sure the rest is.
    """
    one = fit.problem
    free = np.flatnonzero(one.free)
    errors, directions, unit = _local(fit)
    starts, held, at = [], [], []
    for place, index in enumerate(free):
        low, high = one.bounds[index]
        points = fit.fitted[index] + errors[place] * np.concatenate([-np.array(_MULTIPLES)[::-1], _MULTIPLES])
        points = np.concatenate([[low], np.clip(points, low, high), [high]])
        for point in points:
            # From where the others would follow on a slope as steep as here, and from where they are: far off either may fail.
            for follows in (directions[place], 0.0):
                start = fit.fitted.copy()
                start[free] += follows * (point - fit.fitted[index])
                start = np.clip(start, one.bounds[:, 0], one.bounds[:, 1])
                start[index] = point
                starts.append(start)
                held.append(one.free & (np.arange(len(start)) != index))
            at.append(point)
    _, objective = one.solve(np.array(starts), _STEPS, free=np.array(held))
    objective = objective.reshape(-1, 2).min(axis=1)
    rises = (2 * (objective - fit.objective) / unit).reshape(len(free), -1)
    points = np.array(at).reshape(len(free), -1)
    found = {}
    for place, index in enumerate(free):
        sides = [_crossing(fit.fitted[index], points[place], rises[place], side) for side in (-1, 1)]
        parameter = one.law.parameters[index]
        found[parameter.name] = Profile(
            *(None if side is None else float(np.exp(side)) if parameter.log else side for side in sides)
        )
    return found


def _local(fit: Fit) -> tuple[np.ndarray, np.ndarray, float]:
    """Standard errors, the direction in which the others follow each parameter, and the objective's unit."""
    one = fit.problem
    with float64_on_cpu():
        columns = {name: jnp.asarray(column) for name, column in one.columns.items()}
        slopes = np.asarray(jax.jacfwd(lambda x: one.law.log_loss(x, columns))(jnp.asarray(fit.fitted)))[:, one.free]
        residuals = np.asarray(one.law.log_loss(jnp.asarray(fit.fitted), columns)) - np.log(one.loss)
    near = np.abs(residuals) <= DELTA
    psi = np.clip(residuals, -DELTA, DELTA)
    curvature = one.weights * np.minimum(1.0, DELTA / np.maximum(np.abs(residuals), 1e-300))
    freedom = max(1, len(residuals) - slopes.shape[1]) / len(residuals)
    unit = np.sum(one.weights * psi**2) / max(np.sum(one.weights * near), 1.0) / freedom
    unit = max(float(unit), 1e-24)  # runs without noise: any rise above rounding counts
    matrix = slopes.T @ (curvature[:, None] * slopes)
    width = np.sqrt(np.maximum(np.diag(matrix), 1e-30))
    correlation = matrix / width[:, None] / width[None, :]
    inverse = np.linalg.inv(correlation + _SINGULAR * np.eye(len(width))) / width[:, None] / width[None, :]
    variance = np.maximum(np.diag(inverse), 1e-30)
    farthest = (one.bounds[one.free, 1] - one.bounds[one.free, 0]) / _FINEST
    return np.minimum(np.sqrt(variance * unit), farthest), inverse / variance[:, None], unit


def _crossing(centre: float, points: np.ndarray, rises: np.ndarray, side: int) -> float | None:
    """Where the objective has risen by _RISE on one side, between two points by the square roots of their rises."""
    order = np.argsort(side * points, kind="stable")
    before, rise_before = centre, 0.0
    for point, rise in zip(points[order], rises[order], strict=True):
        if side * (point - centre) <= 0:
            continue
        if rise >= _RISE:
            root, target = np.sqrt([max(rise_before, 0.0), rise]), np.sqrt(_RISE)
            return float(before + (point - before) * (target - root[0]) / max(root[1] - root[0], 1e-300))
        before, rise_before = point, rise
    return None
