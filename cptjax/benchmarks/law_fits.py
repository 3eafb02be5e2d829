"""Fitting a law from many starts, against scipy's L-BFGS-B with analytic gradients one start after another; and the bootstrap.

Both minimise the sum of Huber's losses of the log-loss (arXiv 2203.15556, approach 3; 2404.10102) from the same starting
points on the same runs.
"""

import time
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize

from cptjax.configuration.values import whole_number
from cptjax.scaling.bootstrap import bootstrap, clusters, drawn_weights
from cptjax.scaling.fitting import Problem, fit, problem, starting_points
from cptjax.scaling.registry import LAWS
from cptjax.scaling.runs import read_runs
from cptjax.scaling.solver import DELTA


def fit_chinchilla(
    runs: str,
    params_column: str = "Model Size",
    flops_column: str = "Training FLOP",
    drop_largest_losses: float = 5,
    starts: float = 4500,
    peer_starts: float | None = 300,
    resamples: float = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Fits L = E + A / N**alpha + B / D**beta to a table of runs.

    Args:
        runs: a CSV file whose columns of sizes and FLOPs are named as said.
        peer_starts: so many of the starting points scipy begins from; its time is scaled up to all of them. None: all.
        resamples: refits of the bootstrap.

    Returns:
        Seconds of each, compilation included for ours; `times_faster`, theirs over ours; the two objectives and how far apart
        they are; seconds of the bootstrap.
    """
    starts, resamples = whole_number(starts, "STARTS", 1), whole_number(resamples, "RESAMPLES", 1)
    table = read_runs(runs, {"params": params_column, "flops": flops_column})
    kept = np.argsort(table.numbers["loss"], kind="stable")[: len(table) - int(drop_largest_losses)]
    table = table.only(np.sort(kept))
    one = problem(LAWS["chinchilla"], table.numbers, table.numbers["loss"])

    begin = time.perf_counter()
    fitted = fit(one, starts, seed)
    ours = time.perf_counter() - begin
    points = starting_points(one, starts, seed)
    some = points if peer_starts is None else points[:: max(1, starts // whole_number(peer_starts, "PEER_STARTS", 1))]
    begin = time.perf_counter()
    found = [_by_scipy(one, point) for point in some]
    theirs = (time.perf_counter() - begin) * starts / len(some)
    begin = time.perf_counter()
    bootstrap(fitted, drawn_weights(*clusters(table.names, len(table))[:2], resamples, seed))
    return {
        "runs": len(table),
        "starts": starts,
        "seconds_ours": ours,
        "seconds_scipy": theirs,
        "scipy_starts_run": len(some),
        "times_faster": theirs / ours,
        "objective_ours": fitted.objective,
        "objective_scipy": min(found),
        **{f"fitted_{name}": value for name, value in fitted.values.items()},
        "resamples": resamples,
        "seconds_bootstrap": time.perf_counter() - begin,
    }


def _by_scipy(one: Problem, start: Float[np.ndarray, " parameters"]) -> float:
    """The objective that L-BFGS-B ends at, with the gradient written out in numpy."""
    log_n, log_d = np.log(one.columns["params"]), np.log(one.columns["tokens"])
    measured = np.log(one.loss)
    order = [LAWS["chinchilla"].names.index(name) for name in ("E", "A", "B", "alpha", "beta")]

    def objective(x):
        e, a, b, alpha, beta = x[order]
        terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
        top = terms.max(axis=0)
        parts = np.exp(terms - top)
        whole = parts.sum(axis=0)
        residual = top + np.log(whole) - measured
        slope = np.clip(residual, -DELTA, DELTA)
        shares = parts / whole * slope
        gradient = np.empty(5)
        gradient[order] = [
            shares[0].sum(),
            shares[1].sum(),
            shares[2].sum(),
            -(shares[1] * log_n).sum(),
            -(shares[2] * log_d).sum(),
        ]
        size = np.abs(residual)
        return np.where(size <= DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA)).sum(), gradient

    settings = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-12, "gtol": 1e-9}
    return float(
        optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=one.bounds, options=settings).fun
    )
