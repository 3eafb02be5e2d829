"""What is to be doubted about a fit: how it varies with other runs, what they cannot tell, and its error on unseen ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.scaling.allocation import allocated
from cptjax.scaling.bootstrap import FEW_CLUSTERS, PERCENTILES, bootstrap, clusters, drawn_weights
from cptjax.scaling.checks import check_levels
from cptjax.scaling.fitting import Fit, Problem, fit
from cptjax.scaling.held_out import HeldOut, held_out_error, largest
from cptjax.scaling.profile import Profile
from cptjax.scaling.runs import Runs


def refits(
    fitted: Fit, table: Runs, resamples: int, seed: int, warnings: list[str]
) -> tuple[np.ndarray | None, str | None]:
    """The parameters of the bootstrap's refits, and what varies in them; None with a warning where there is nothing to draw."""
    trunks, seeds, varies = clusters(table.names, len(table))
    count = int(trunks.max()) + 1
    if resamples == 0 or count < 2:
        warnings.append("no intervals: " + ("RESAMPLES is 0" if resamples == 0 else "all runs share one trunk"))
        return None, None
    if count < FEW_CLUSTERS:
        warnings.append(f"the intervals rest on {count} {varies}: with fewer than {FEW_CLUSTERS} they are too narrow")
    return bootstrap(
        fitted, drawn_weights(trunks, seeds, resamples, seed), lambda line: print(line, flush=True)
    ), varies


def bought(fitted: Fit, drawn: np.ndarray | None, warnings: list[str]) -> dict[str, Any]:
    """What the law's closed form says to buy, with intervals where there are refits."""
    law = fitted.problem.law
    try:
        closed = allocated(law, fitted.values)
    except ConfigurationError as error:
        warnings.append(str(error))
        return {}
    allocation = {name: {"value": value, "interval": None} for name, value in closed.items()}
    if closed and drawn is not None:
        try:
            again = [allocated(law, {**law.values_from(row), **fitted.problem.frozen}) for row in drawn]
        except ConfigurationError:
            warnings.append("some resamples have no compute-optimal split: no interval for the allocation")
            return allocation
        for name in closed:
            low, high = np.percentile([each[name] for each in again], PERCENTILES)
            allocation[name]["interval"] = [float(low), float(high)]
    return allocation


def error_held_out(
    one: Problem, axis: str | None, share: float, starts: int, seed: int, allow: Sequence[str], warnings: list[str]
) -> HeldOut | None:
    """The error on the largest levels of `axis`, or None with a warning where too little would be left to fit."""
    if axis is None:
        return None
    held = largest(one.columns[axis], share)
    try:
        if held.all():
            raise ConfigurationError(f"{axis} has one level")
        check_levels(one.only(~held), "the runs below the largest", allow)
    except ConfigurationError as error:
        warnings.append(
            f"no held-out error: without the largest {axis} too little is left ({str(error).splitlines()[0]})"
        )
        return None
    print(f"held out: {int(held.sum())} runs with the largest {axis}", flush=True)
    return held_out_error(one, axis, held, starts, seed)


def doubts(fitted: Fit, profile: Mapping[str, Profile]) -> list[str]:
    """Warnings of what the fit itself shows."""
    found = []
    for name, its in profile.items():
        if not its.identified:
            side = (
                "on either side" if its.low is None and its.high is None else "above" if its.high is None else "below"
            )
            found.append(f"{name} is not identified: any value {side}, up to its bound, fits these runs as well")
    found += [f"{name} ended on a bound" for name in fitted.at_bounds]
    if fitted.agreeing < min(3, fitted.followed):
        found.append(f"only {fitted.agreeing} of the {fitted.followed} best starts found this optimum: raise STARTS")
    return found


def other_definition(
    one: Problem, fitted: Fit, table: Runs, ranges: Mapping[str, Sequence[float]] | None, starts: int, seed: int
) -> list[str]:
    """Warns of exponents that leave their intervals when N does not count embeddings (PROTOCOL 2)."""
    other = table.numbers.get("params_non_embedding")
    if other is None or "params" not in one.columns or ranges is None:
        return []
    if one.frozen:
        return ["params_non_embedding is not tried: the frozen parameters belong to one definition of N"]
    if not (np.isfinite(other) & (other > 0)).all():
        return ["params_non_embedding is not positive in every run: a fit with that N was not tried"]
    again = fit(dataclasses.replace(one, columns={**one.columns, "params": other}), starts, seed).values
    moved = [
        f"{parameter.name} is {fitted.values[parameter.name]:.4g} with params"
        f" and {again[parameter.name]:.4g} with params_non_embedding"
        for parameter in one.law.parameters
        if not parameter.log and not ranges[parameter.name][0] <= again[parameter.name] <= ranges[parameter.name][1]
    ]
    return [f"{each}: outside its interval, so it depends on what N counts" for each in moved]
