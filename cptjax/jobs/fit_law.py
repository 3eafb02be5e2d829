"""A scaling law fitted to a table of runs, with what to distrust about it."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.reporting.folder import RunFolder
from cptjax.scaling.allocation import allocated
from cptjax.scaling.bootstrap import FEW_CLUSTERS, PERCENTILES, bootstrap, clusters, drawn_weights, intervals
from cptjax.scaling.checks import check_allowed, check_levels, check_runs
from cptjax.scaling.fit import Fit, Problem, fit, problem
from cptjax.scaling.held_out import HeldOut, held_out_error, largest, seed_deviation
from cptjax.scaling.law import Law
from cptjax.scaling.profile import Profile, profiles
from cptjax.scaling.registry import law_named
from cptjax.scaling.runs import Runs, read_runs

FIT = "fit.json"


def fit_law(
    runs: str,
    law: str | Law,
    output_dir: str,
    columns: Mapping[str, str] | None = None,
    frozen: str | Mapping[str, float] | None = None,
    bounds: Mapping[str, Sequence[float]] | None = None,
    drop_largest_losses: int = 0,
    held_out: str | None = "auto",
    held_out_share: float = 0.2,
    starts: int = 512,
    resamples: int = 1000,
    seed: int = 0,
    allow: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Writes `<output_dir>/fit.json`: the law's parameters, how sure they are, and its error on the largest runs.

    Args:
        runs: a CSV or JSONL table, one run a row.
        law: a law's name, or a law.
        columns: what the table calls a column, where that is not our name.
        frozen: parameters that are not fitted, by name, or the folder of a fit that has those which the law is given.
        bounds: [lowest, highest] of a parameter, in place of the law's own.
        drop_largest_losses: so many runs with the largest losses are left out.
        held_out: the column whose largest levels the error is measured on, after a fit without them; "auto": `params`, or the
            law's first column where it has none; None: not measured.
        held_out_share: how many of its levels, one at least.
        starts, resamples: starting points of the fit; refits of the bootstrap (0: no intervals).
        allow: refusals that are switched off: "unannealed", "few_levels", "units".

    Raises:
        ConfigurationError: the law cannot be fitted to these runs, or a setting cannot be.
        CptjaxError: the law is finite nowhere.
    """
    law = law_named(law) if isinstance(law, str) else law
    check_allowed(allow)
    starts, resamples = whole_number(starts, "STARTS", 1), whole_number(resamples, "RESAMPLES")
    if held_out == "auto":
        held_out = "params" if "params" in law.columns else law.columns[0]
    if held_out is not None and held_out not in law.columns:
        raise ConfigurationError(
            f"HELD_OUT = {held_out!r}; the law '{law.name}' has {', '.join(law.columns)}. None: no error."
        )
    if not 0 < held_out_share < 1:
        raise ConfigurationError(f"HELD_OUT_SHARE = {held_out_share!r} must be between 0 and 1.")
    table = read_runs(runs, columns)
    warnings = check_runs(law, table, allow)
    table, dropped = _without_largest(table, law.target, whole_number(drop_largest_losses, "DROP_LARGEST_LOSSES"))
    given = _frozen(law, frozen)
    one = problem(law, table.numbers, table.numbers[law.target], given, bounds, table.numbers.get("weight"))
    warnings += check_levels(one, table.path, allow)
    settings = {
        "law": repr(law),
        "runs_sha256": hashlib.sha256(epath.Path(runs).expanduser().read_bytes()).hexdigest(),
        "columns": dict(columns or {}),
        "frozen": given,
        "bounds": {name: list(map(float, pair)) for name, pair in (bounds or {}).items()},
        "drop_largest_losses": dropped,
        "held_out": held_out,
        "held_out_share": held_out_share if held_out else None,
        "starts": starts,
        "resamples": resamples,
        "seed": seed,
        "allow": sorted(allow),
    }
    folder = RunFolder(output_dir)
    print(f"{law.name}: {len(table)} runs of {table.path}, {int(one.free.sum())} parameters to fit", flush=True)
    if _done(folder, settings) or dry_run:
        return
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})

    fitted = fit(one, starts, seed)
    print(f"objective {fitted.objective:.6g}; {fitted.agreeing} of the {fitted.followed} best starts agree", flush=True)
    ranges, allocation, varies = _uncertainty(fitted, table, resamples, seed, warnings)
    profile = profiles(fitted)
    error = _held_out(one, held_out, held_out_share, starts, seed, allow, warnings)
    noise = seed_deviation(one)
    warnings += _doubts(fitted, profile)
    warnings += _other_definition(one, fitted, table, ranges, starts, seed)
    residuals = np.log(fitted.predict(one.columns)) - np.log(one.loss)
    result = {
        "law": law.name,
        "params": fitted.values,
        "intervals": ranges,
        "intervals_vary": varies,
        "objective": fitted.objective,
        "held_out_error": error.relative_error if error else None,
        "skill": error.skill if error else None,
        "held_out": dataclasses.asdict(error) if error else None,
        "seed_deviation": noise,
        "profile": {name: [its.low, its.high] for name, its in profile.items()},
        "allocation": allocation,
        "runs": len(table),
        "log_loss_residual": float(np.sqrt(np.mean(residuals**2))),
        "starts": {"drawn": fitted.starts, "followed": fitted.followed, "agreeing": fitted.agreeing},
        "warnings": warnings,
        "settings": settings,
    }
    folder.write(FIT, json.dumps(result, indent=1, allow_nan=False) + "\n")
    folder.finish({"job": "fit_law", "law": law.name})
    _tell(result)
    print(f"wrote {folder.path / FIT}")
    if lock is not None:
        lock.close()


def _without_largest(table: Runs, target: str, count: int) -> tuple[Runs, int]:
    if count >= len(table):
        raise ConfigurationError(f"DROP_LARGEST_LOSSES = {count} leaves none of {len(table)} runs.")
    order = np.argsort(table.numbers[target], kind="stable")
    return table.only(np.sort(order[: len(table) - count])), count


def _frozen(law: Law, frozen: str | Mapping[str, float] | None) -> dict[str, float]:
    """The frozen values; from another fit's folder those that the law is given."""
    if not isinstance(frozen, str):
        return dict(frozen or {})
    path = epath.Path(frozen).expanduser()
    found = read_json(path / FIT if path.is_dir() else path)
    wanted = law.given or ("E", "A", "alpha")
    if not isinstance(found, dict) or any(name not in found.get("params", {}) for name in wanted):
        raise ConfigurationError(
            f"FROZEN = '{frozen}' is no fit with {', '.join(wanted)}: name a folder that fit_law wrote."
        )
    return {name: float(found["params"][name]) for name in wanted}


def _done(folder: RunFolder, settings: Mapping[str, Any]) -> bool:
    """Whether this very fit is in the folder; another one there is refused."""
    path = folder.path / FIT
    if not path.exists():
        return False
    earlier = read_json(path)["settings"]
    if different := [name for name in settings if json.loads(json.dumps(settings[name])) != earlier.get(name)]:
        raise ConfigurationError(
            f"OUTPUT_DIR = '{folder.path}' holds another fit (other {', '.join(different)}). Name another folder."
        )
    print(f"{folder.path} is finished; nothing to do.")
    return True


def _uncertainty(fitted: Fit, table: Runs, resamples: int, seed: int, warnings: list[str]):
    """Intervals of the parameters and of what the law says to buy, and what varies in them."""
    law = fitted.problem.law
    try:
        bought = allocated(law, fitted.values)
    except ConfigurationError as error:
        warnings.append(str(error))
        bought = {}
    trunks, seeds, varies = clusters(table.names, len(table))
    count = int(trunks.max()) + 1
    if resamples == 0 or count < 2:
        warnings.append("no intervals: " + ("RESAMPLES is 0" if resamples == 0 else "all runs share one trunk"))
        return None, {name: {"value": value, "interval": None} for name, value in bought.items()}, None
    if count < FEW_CLUSTERS:
        warnings.append(f"the intervals rest on {count} {varies}: with fewer than {FEW_CLUSTERS} they are too narrow")
    refits = bootstrap(fitted, drawn_weights(trunks, seeds, resamples, seed), lambda line: print(line, flush=True))
    allocation = {name: {"value": value, "interval": None} for name, value in bought.items()}
    if bought:
        try:
            again = [allocated(law, {**law.values_from(row), **fitted.problem.frozen}) for row in refits]
        except ConfigurationError:
            warnings.append("some resamples have no compute-optimal split: no interval for the allocation")
        else:
            for name in bought:
                low, high = np.percentile([each[name] for each in again], PERCENTILES)
                allocation[name]["interval"] = [float(low), float(high)]
    return intervals(fitted, refits), allocation, varies


def _held_out(
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


def _doubts(fitted: Fit, profile: Mapping[str, Profile]) -> list[str]:
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


def _other_definition(
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


def _tell(result: Mapping[str, Any]) -> None:
    """The fit as a table."""
    ranges = result["intervals"] or {}
    print(f"\n{'parameter':12} {'value':>12}   95% interval (bootstrap over {result['intervals_vary'] or 'nothing'})")
    for name, value in result["params"].items():
        given = "frozen" if name in result["settings"]["frozen"] else ""
        shown = f"[{ranges[name][0]:.6g}, {ranges[name][1]:.6g}]" if name in ranges else given
        print(f"{name:12} {value:>12.6g}   {shown}")
    for name, its in result["allocation"].items():
        interval = its["interval"]
        print(f"{name:12} {its['value']:>12.6g}   " + (f"[{interval[0]:.6g}, {interval[1]:.6g}]" if interval else ""))
    if error := result["held_out"]:
        noise = result["seed_deviation"]
        print(
            f"held-out error {error['relative_error']:.3%} of the loss, {error['root_mean_square']:.4f} nats"
            + (f" (seeds alone: {noise:.4f})" if noise else " (no two runs differ in seed alone)")
            + (
                f"; skill {error['skill']:.3f} over a log-log line ({error['skill_runs']} runs)"
                if error["skill"] is not None
                else "; no skill: no held-out run has two smaller sizes on its line of the grid"
            )
        )
    for warning in result["warnings"]:
        print(f"warning: {warning}")
