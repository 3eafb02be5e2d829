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
from cptjax.reporting.folder import RunFolder
from cptjax.reporting.law_page import law_page, law_tables
from cptjax.reporting.law_plots import Fitted
from cptjax.reporting.table_text import as_latex, as_markdown
from cptjax.scaling.bootstrap import intervals
from cptjax.scaling.choosing import choose
from cptjax.scaling.doubts import bought, doubts, error_held_out, other_definition, refits
from cptjax.scaling.fitting import Fit, fit
from cptjax.scaling.held_out import HeldOut, largest, seed_deviation
from cptjax.scaling.law import Law
from cptjax.scaling.profile import profiles
from cptjax.scaling.registry import law_named
from cptjax.scaling.runs import read_runs
from cptjax.scaling.saved_fit import FIT, REFITS
from cptjax.scaling.table_fit import prepare, refitted


def fit_law(
    runs: str,
    law: str | Law | Sequence[str | Law],
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
    """Writes `<output_dir>/fit.json` and `report.html`: the law's parameters, how sure they are, and its error on the largest runs.

    The report's tables are written as `tables.md` and `tables.tex` too.

    Args:
        runs: a CSV or JSONL table, one run a row.
        law: a law's name, or a law; or several, of which the one is taken that predicts the largest runs best among those that are
            not held out (nested selection).
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
    laws = _laws(law, frozen, bounds)
    starts, resamples = whole_number(starts, "STARTS", 1), whole_number(resamples, "RESAMPLES")
    held_out = _axis(held_out, laws)
    if not 0 < held_out_share < 1:
        raise ConfigurationError(f"HELD_OUT_SHARE = {held_out_share!r} must be between 0 and 1.")
    dropped = whole_number(drop_largest_losses, "DROP_LARGEST_LOSSES")
    ready = prepare(laws, read_runs(runs, columns), frozen, bounds, dropped, allow)
    table, problems, warnings = ready.runs, ready.problems, list(ready.warnings)
    settings = {
        "law": ", ".join(map(repr, laws)),
        "runs_sha256": hashlib.sha256(epath.Path(runs).expanduser().read_bytes()).hexdigest(),
        "columns": dict(columns or {}),
        "frozen": dict(ready.given),
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
    for name, each in problems.items():
        print(f"{name}: {len(table)} runs of {table.path}, {int(each.free.sum())} parameters to fit", flush=True)
    if folder.holds(FIT, settings):
        print(f"{folder.path} is finished; nothing to do.")
        return
    if dry_run:
        return
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})

    choice = choose(problems, held_out, held_out_share, starts, seed, table.path) if len(laws) > 1 else None
    law = choice.law if choice else laws[0]
    one = problems[law.name]
    fitted = fit(one, starts, seed)
    print(f"objective {fitted.objective:.6g}; {fitted.agreeing} of the {fitted.followed} best starts agree", flush=True)
    drawn, varies = refits(fitted, table, resamples, seed, warnings)
    ranges = None if drawn is None else intervals(fitted, drawn)
    allocation = bought(fitted, drawn, warnings)
    profile = profiles(fitted)
    error = error_held_out(one, held_out, held_out_share, starts, seed, allow, warnings)
    noise = seed_deviation(one)
    warnings += doubts(fitted, profile)
    warnings += other_definition(one, fitted, table, ranges, starts, seed)
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
        "fitted_range": {
            name: [float(one.columns[name].min()), float(one.columns[name].max())] for name in law.columns
        },
        "choice": choice.as_table() if choice else None,
        "log_loss_residual": float(np.sqrt(np.mean(residuals**2))),
        "starts": {"drawn": fitted.starts, "followed": fitted.followed, "agreeing": fitted.agreeing},
        "warnings": warnings,
        "settings": settings,
    }
    if drawn is not None:
        rows = [list(values.values()) for values in refitted(fitted, drawn)]
        folder.write(REFITS, json.dumps({"params": list(law.names), "values": rows}) + "\n")
    tables = law_tables(result)
    folder.write("tables.md", as_markdown(tables))
    folder.write("tables.tex", as_latex(tables))
    folder.write(
        "report.html", law_page(result, _drawn(fitted, error, held_out, held_out_share, drawn), str(folder.path))
    )
    folder.write(FIT, json.dumps(result, indent=1, allow_nan=False) + "\n")
    folder.finish({"job": "fit_law", "law": law.name})
    _tell(result)
    print(f"wrote {folder.path / FIT}")
    if lock is not None:
        lock.close()


def _laws(
    law: str | Law | Sequence[str | Law], frozen: str | Mapping[str, float] | None, bounds: Mapping | None
) -> list[Law]:
    """The laws that LAW names: one, or several to choose among.

    Raises:
        ConfigurationError: several that predict different columns, or are given parameters.
    """
    asked = law if isinstance(law, list | tuple) else [law]
    laws = [law_named(each) if isinstance(each, str) else each for each in asked]
    if len({each.name for each in laws}) != len(laws) or not laws:
        raise ConfigurationError(f"LAW = {[each.name for each in laws]}: name one law, or several different ones.")
    if len({each.target for each in laws}) > 1:
        what = ", ".join(f"{each.name} ({each.target})" for each in laws)
        raise ConfigurationError(f"LAW names laws that predict different columns: {what}.")
    if len(laws) > 1 and (frozen or bounds or any(each.given for each in laws)):
        raise ConfigurationError(
            "LAW names several laws to choose among, so FROZEN and BOUNDS cannot be set, and none may take parameters of another "
            "fit.\n  Fit such a law by itself."
        )
    return laws


def _axis(held_out: str | None, laws: Sequence[Law]) -> str | None:
    """The column whose largest levels are held out."""
    if held_out == "auto":
        held_out = "params" if "params" in laws[0].columns else laws[0].columns[0]
    if held_out is None and len(laws) > 1:
        raise ConfigurationError("HELD_OUT = None, and LAW names several laws: they are chosen among by held-out runs.")
    for law in laws:
        if held_out is not None and held_out not in law.columns:
            raise ConfigurationError(
                f"HELD_OUT = {held_out!r}; the law '{law.name}' has {', '.join(law.columns)}. None: no error."
            )
    return held_out


def _drawn(fitted: Fit, error: HeldOut | None, axis: str | None, share: float, drawn: np.ndarray | None) -> Fitted:
    """What the page draws: held-out runs with what was predicted of them unseen."""
    one = fitted.problem
    predicted, held = fitted.predict(one.columns), np.zeros(len(one.loss), bool)
    if error is not None:
        held = largest(one.columns[axis], share)
        predicted = predicted.copy()
        predicted[held] = error.predicted
    return Fitted(one.law, fitted.values, one, held, predicted, refitted(fitted, drawn))


def _tell(result: Mapping[str, Any]) -> None:
    """The fit as a table."""
    for row in result["choice"] or ():
        error = f"inner error {row['inner_error']:.3%}" if row["reason"] is None else row["reason"]
        print(f"{'chosen' if row['chosen'] else '      '} {row['law']:20} {error}")
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
