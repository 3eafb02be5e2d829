"""Fitting a law: many starting points side by side, the best of them to the end, and a polish by scipy."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize
from scipy.stats import qmc

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.scaling.law import Law
from cptjax.scaling.solver import DELTA, float64_on_cpu, solve

STARTS = 512
_FIRST_STEPS, _LAST_STEPS = 40, 200
_GO_ON = 32  # starts that are followed to the end
_SAME = 1e-3  # relative difference of objectives under which two starts have found the same


@dataclasses.dataclass(frozen=True)
class Problem:
    """A law with the runs it is fitted to.

    Attributes:
        columns: the law's columns, float64 [runs] each.
        loss: nats per token, float64 [runs].
        weights: of each run, float64 [runs].
        frozen: values of parameters that are not fitted.
        bounds: of what is fitted, float64 [parameters, 2].
    """

    law: Law
    columns: Mapping[str, np.ndarray]
    loss: Float[np.ndarray, " runs"]
    weights: Float[np.ndarray, " runs"]
    frozen: Mapping[str, float]
    bounds: Float[np.ndarray, "parameters 2"]

    @property
    def free(self) -> Bool[np.ndarray, " parameters"]:
        """Which parameters are fitted."""
        return np.array([name not in self.frozen for name in self.law.names])

    def only(self, chosen: np.ndarray) -> "Problem":
        """The same with some of the runs, by index or mask."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return dataclasses.replace(self, columns=columns, loss=self.loss[chosen], weights=self.weights[chosen])

    def solve(self, starts, steps, weights=None, free=None) -> tuple[np.ndarray, np.ndarray]:
        """`solver.solve` from these starts; weights and free parameters are the problem's own unless others are given."""
        weights, free = self.weights if weights is None else weights, self.free if free is None else free
        return solve(self.law, self.columns, np.log(self.loss), starts, weights, free, self.bounds, steps)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes:
        fitted: what was fitted, in the law's order: logarithms of scales.
        objective: the sum of Huber's losses.
        starts: how many there were; `agreeing` of them came to this objective, of the `followed` that went to the end.
    """

    problem: Problem
    fitted: Float[np.ndarray, " parameters"]
    objective: float
    starts: int
    followed: int
    agreeing: int

    @property
    def values(self) -> dict[str, float]:
        """The parameters by name; frozen ones are just what was given."""
        return {**self.problem.law.values_from(self.fitted), **self.problem.frozen}

    @property
    def at_bounds(self) -> list[str]:
        """Parameters that ended on a bound."""
        width = 1e-6 * (self.problem.bounds[:, 1] - self.problem.bounds[:, 0])
        near = np.abs(self.fitted[:, None] - self.problem.bounds) <= width[:, None]
        return [
            name
            for name, at, free in zip(self.problem.law.names, near.any(1), self.problem.free, strict=True)
            if at & free
        ]

    def predict(self, columns: Mapping[str, np.ndarray | float]) -> np.ndarray:
        """The loss that the fitted law predicts, nats per token."""
        return self.problem.law.predict(self.values, columns)


def problem(
    law: Law,
    columns: Mapping[str, np.ndarray],
    loss: Float[np.ndarray, " runs"],
    frozen: Mapping[str, float] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    weights: Float[np.ndarray, " runs"] | None = None,
) -> Problem:
    """A law to be fitted to columns by name and losses in nats per token; frozen values and bounds by parameter.

    Raises:
        ConfigurationError: a name that is no parameter of the law, a value that it cannot have, or a parameter that another
            fit has to give is free.
    """
    frozen, bounds = dict(frozen or {}), dict(bounds or {})
    for what, given in (("FROZEN", frozen), ("BOUNDS", bounds)):
        if unknown := [name for name in given if name not in law.names]:
            raise ConfigurationError(
                f"{what} names {', '.join(unknown)}; the law '{law.name}' has {', '.join(law.names)}."
            )
    if lacking := [name for name in law.given if name not in frozen]:
        raise ConfigurationError(
            f"The law '{law.name}' takes {', '.join(law.given)} from another fit (its docstring says which); "
            f"{', '.join(lacking)} is not given.\n"
            "  FROZEN = '<folder of that fit>', or FROZEN = {'E': 1.55, ...}."
        )
    limits = []
    for parameter in law.parameters:
        values = [*bounds.get(parameter.name, ()), *([frozen[parameter.name]] if parameter.name in frozen else [])]
        if any(not np.isfinite(value) or (parameter.log and value <= 0) for value in values):
            raise ConfigurationError(
                f"{parameter.name} of the law '{law.name}' is given as {values}; "
                f"it is a {'positive ' if parameter.log else ''}number."
            )
        own = bounds.get(parameter.name)
        limits.append(parameter.bounds if own is None else np.log(own) if parameter.log else own)
        if limits[-1][0] >= limits[-1][1]:
            raise ConfigurationError(f"BOUNDS of {parameter.name} are {own}: the lower one comes first.")
    arrays = {name: np.asarray(columns[name], np.float64) for name in law.columns}
    loss = np.asarray(loss, np.float64)
    weights = np.ones_like(loss) if weights is None else np.asarray(weights, np.float64)
    return Problem(law, arrays, loss, weights, frozen, np.asarray(limits, np.float64))


def fit(one: Problem, starts: int = STARTS, seed: int = 0) -> Fit:
    """Fits a law from `starts` starting points, spread evenly over its parameters' ranges (a scrambled Sobol sequence).

    Raises:
        CptjaxError: the law is finite at none of the starting points.
    """
    found, objective = one.solve(starting_points(one, starts, seed), _FIRST_STEPS)
    best = np.argsort(objective, kind="stable")[:_GO_ON]
    if not np.isfinite(objective[best[0]]):
        raise CptjaxError(f"The law '{one.law.name}' is not finite on these runs at any of {starts} starting points.")
    found, objective = one.solve(found[best], _LAST_STEPS)
    first = int(np.argmin(objective))
    fitted, least = polish(one, found[first], float(objective[first]))
    agreeing = int(np.sum(objective <= least * (1 + _SAME) + 1e-15))
    return Fit(one, fitted, least, starts, len(best), agreeing)


def starting_points(one: Problem, starts: int, seed: int) -> Float[np.ndarray, "starts parameters"]:
    """Points of the ranges that the law's parameters start in; frozen parameters have their values everywhere."""
    low, high = np.array([parameter.starts for parameter in one.law.parameters]).T
    sobol = qmc.Sobol(len(low), rng=np.random.default_rng(seed))
    points = low + (high - low) * sobol.random_base2(max(0, int(starts - 1).bit_length()))[:starts]
    points = np.clip(points, one.bounds[:, 0], one.bounds[:, 1])
    held = one.law.fitted_from({name: one.frozen.get(name, 1.0) for name in one.law.names})
    return np.where(one.free, points, held)


def polish(one: Problem, start: np.ndarray, objective: float) -> tuple[np.ndarray, float]:
    """The same minimum to the last digits: scipy's trust-region reflective method with Huber's loss and exact slopes."""
    free = one.free
    low, high = one.bounds[free].T
    middle = np.clip(start[free], low + 1e-9 * (high - low), high - 1e-9 * (high - low))  # scipy starts inside
    with float64_on_cpu():
        columns = {name: jnp.asarray(column) for name, column in one.columns.items()}
        predicted = jax.jit(lambda x: one.law.log_loss(x, columns))
        slopes = jax.jit(jax.jacfwd(predicted))
        measured = np.log(one.loss)

        def whole(part):
            x = start.copy()
            x[free] = part
            return x

        def weighted_huber(squares):
            """Of (residual / DELTA)**2: twice Huber's loss in units of DELTA**2, and its first two derivatives."""
            far = np.maximum(squares, 1.0)
            outside = squares > 1
            rho = np.where(outside, 2 * np.sqrt(far) - 1, squares)
            return one.weights * np.stack(
                [rho, np.where(outside, far**-0.5, 1.0), np.where(outside, -0.5 * far**-1.5, 0.0)]
            )

        result = optimize.least_squares(
            lambda part: np.asarray(predicted(whole(part))) - measured,
            middle,
            jac=lambda part: np.asarray(slopes(whole(part)))[:, free],
            bounds=(low, high),
            loss=weighted_huber,
            f_scale=DELTA,
            x_scale="jac",
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=200,
        )
    if np.isfinite(result.cost) and result.cost < objective:
        return whole(result.x), float(result.cost)
    return start, objective
