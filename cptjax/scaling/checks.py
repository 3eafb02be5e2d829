"""What is refused before a law is fitted, and what is warned of (PROTOCOL 3, 13)."""

from collections.abc import Sequence

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.scaling.fitting import Problem
from cptjax.scaling.law import Law
from cptjax.scaling.runs import Runs

ALLOWED = ("unannealed", "few_levels", "units")  # refusals that may be switched off, by name
_SAME_LEVEL = 1e-3  # relative difference below which two values are one level of an axis
_FEWEST_PARAMS, _FEWEST_TOKENS = 1e3, 1e5  # fewer in the largest run: thousands or billions were meant
_SHARES = ("target_share", "critical_share", "accuracy")
_MOST_LOSS = 20.0  # nats per token; uniform over 256,000 pieces is 12.5


def check_allowed(allow: Sequence[str]) -> None:
    """Refuses names that switch nothing off."""
    if unknown := [name for name in allow if name not in ALLOWED]:
        raise ConfigurationError(f"ALLOW = {list(allow)}: {', '.join(unknown)} is none of {', '.join(ALLOWED)}.")


def check_runs(law: Law, runs: Runs, allow: Sequence[str]) -> list[str]:
    """Refuses runs that the law cannot be fitted to; returns warnings.

    Raises:
        ConfigurationError: a column is missing or empty, a value is impossible, tokens or parameters are not counted one by
            one, or points are not annealed.
    """
    warnings = []
    for name in (*law.columns, law.target):
        if name not in runs.numbers:
            raise ConfigurationError(
                f"RUNS = '{runs.path}' has no column {name!r}; "
                f"the law '{law.name}' reads {', '.join(law.columns)} and {law.target}.\n"
                f"  If it is there by another name: COLUMNS = {{'{name}': 'its name there'}}."
            )
        column = runs.numbers[name]
        if (empty := ~np.isfinite(column)).any():
            raise ConfigurationError(f"{name} is empty or not finite: {runs.at(empty)}.")
        zero = name in law.may_be_zero
        if (wrong := column < 0 if zero else column <= 0).any():
            least = "at least 0" if zero else "above 0"
            why = " A loss is in nats per token, so never negative." if name == "loss" else ""
            raise ConfigurationError(f"{name} is {column[wrong][0]:g}, and must be {least}: {runs.at(wrong)}.{why}")
        if name in _SHARES and (wrong := column > 1).any():
            raise ConfigurationError(
                f"{name} is {column[wrong][0]:g}, and must be at most 1: {runs.at(wrong)}. It is a share, not a percentage."
            )
    if {"prior_tokens", "tokens"} <= law.may_be_zero:
        nothing = (runs.numbers["prior_tokens"] == 0) & (runs.numbers["tokens"] == 0)
        if nothing.any():
            raise ConfigurationError(
                f"tokens and prior_tokens are both 0: {runs.at(nothing)}. An untrained model has no law."
            )
    if (
        "unique_tokens" in law.columns
        and (more := runs.numbers["unique_tokens"] > runs.numbers["tokens"] * (1 + _SAME_LEVEL)).any()
    ):
        raise ConfigurationError(
            f"unique_tokens exceeds tokens: {runs.at(more)}. Give the unique tokens that were read."
        )
    if "weight" in runs.numbers and (wrong := ~(runs.numbers["weight"] > 0)).any():
        raise ConfigurationError(f"a weight is not above 0: {runs.at(wrong)}. Remove a run that shall not count.")
    if "units" not in allow:
        _refuse_units(law, runs)
    if "loss" in (*law.columns, law.target) and (high := runs.numbers["loss"] > _MOST_LOSS).any():
        warnings.append(
            f"a loss above {_MOST_LOSS:g} nats per token ({runs.at(high)}): is it a perplexity, or in bits?"
        )
    if law.along_schedule:
        return warnings
    if runs.annealed is None:
        warnings.append("the table has no column 'annealed': that all points are annealed is taken on trust")
    elif not runs.annealed.all():
        if "unannealed" not in allow:
            raise ConfigurationError(
                f"{int((~runs.annealed).sum())} of {len(runs)} points are not annealed: {runs.at(~runs.annealed)}.\n"
                "  A loss on a plateau is higher than the same run's after its cooldown, so the two are on different laws.\n"
                "  Remove these points, give each its cooldown, or fit them all the same: ALLOW = ['unannealed']."
            )
        warnings.append(f"{int((~runs.annealed).sum())} of {len(runs)} points are not annealed (allowed)")
    return warnings


def _refuse_units(law: Law, runs: Runs) -> None:
    for name, fewest in (("params", _FEWEST_PARAMS), ("tokens", _FEWEST_TOKENS), ("prior_tokens", _FEWEST_TOKENS)):
        if name not in law.columns:
            continue
        largest = float(runs.numbers[name].max())
        if 0 < largest < fewest:
            raise ConfigurationError(
                f"the most {name} of any run is {largest:g}: that looks like millions or billions of them; {runs.path}.\n"
                "  Count them one by one (3e9, not 3). If the runs are as small as that: ALLOW = ['units']."
            )


def levels(column: np.ndarray) -> np.ndarray:
    """The distinct values of a column, ascending; values within a thousandth of each other are one."""
    values = np.unique(column)
    apart = np.diff(values) > _SAME_LEVEL * np.abs(values[1:])
    return values[np.concatenate([[True], apart])]


def check_levels(one: Problem, path: str, allow: Sequence[str]) -> list[str]:
    """Refuses a grid with too few levels on an axis, or too few points, for the parameters that are fitted.

    Raises:
        ConfigurationError: fewer levels than the axis's free parameters and one more, a constant column among them; not more
            points than free parameters.
    """
    found = []
    for axis, on_it in one.law.axes.items():
        fitted = [name for name in on_it if name not in one.frozen]
        values = levels(one.columns[axis])
        if fitted and len(values) < len(fitted) + 1:
            have = f"is {values[0]:g} in every run" if len(values) == 1 else f"has {len(values)} levels"
            found.append(
                f"{axis} {have}, and the law '{one.law.name}' fits {len(fitted)} parameters on it "
                f"({', '.join(fitted)}): that takes {len(fitted) + 1} levels"
            )
    if len(one.loss) < int(one.free.sum()) + 1:
        found.append(
            f"there are {len(one.loss)} points for {int(one.free.sum())} parameters: that takes one more at least"
        )
    if found and "few_levels" not in allow:
        raise ConfigurationError(
            f"{found[0]}; {path}.\n"
            + "".join(f"  Also: {other}.\n" for other in found[1:])
            + "  Run more levels, freeze parameters (FROZEN = {...}), or fit it all the same: ALLOW = ['few_levels']."
        )
    return [f"{each} (allowed)" for each in found]
