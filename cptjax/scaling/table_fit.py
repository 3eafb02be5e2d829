"""A law fitted to a table of runs: what is refused and warned of first, and `cptjax.scaling.fit`, all of it in one call."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.scaling import fitting
from cptjax.scaling.bootstrap import intervals
from cptjax.scaling.checks import check_allowed, check_levels, check_runs
from cptjax.scaling.doubts import doubts, refits
from cptjax.scaling.fitting import STARTS, Fit, Problem, problem
from cptjax.scaling.law import Law
from cptjax.scaling.profile import profiles
from cptjax.scaling.registry import law_named
from cptjax.scaling.runs import Runs, read_runs, runs_of
from cptjax.scaling.saved_fit import FIT


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Runs that laws may be fitted to: `problems` by the law's name, the values that are `given`, and `warnings`."""

    runs: Runs
    problems: Mapping[str, Problem]
    given: Mapping[str, float]
    warnings: list[str]


def prepare(
    laws: Sequence[Law],
    runs: Runs,
    frozen: str | Mapping[str, float] | None,
    bounds: Mapping[str, Sequence[float]] | None,
    drop_largest_losses: int,
    allow: Sequence[str],
) -> Prepared:
    """Checks that `laws`, which predict one column, can be fitted to `runs`; the arguments are those of the job `fit_law`.

    Raises:
        ConfigurationError: they cannot, or a setting cannot be.
    """
    check_allowed(allow)
    warnings = list(dict.fromkeys(line for each in laws for line in check_runs(each, runs, allow)))
    runs = _without_largest(runs, laws[0].target, drop_largest_losses)
    given, weights = _frozen(laws[0], frozen), runs.numbers.get("weight")
    problems = {
        each.name: problem(each, runs.numbers, runs.numbers[each.target], given, bounds, weights) for each in laws
    }
    if len(laws) == 1:  # of several, those that cannot be fitted are passed over in choosing
        warnings += check_levels(problems[laws[0].name], runs.path, allow)
    return Prepared(runs, problems, given, warnings)


@dataclasses.dataclass(frozen=True)
class TableFit:
    """A law fitted to a table of runs.

    Attributes:
        fitted: the estimate, with its law, columns and losses. runs: those that it was fitted to.
        intervals: 95%, of a bootstrap over what `vary` says, by parameter; None where nothing could be drawn.
        refits: the parameters of each of the bootstrap's refits, by name.
        warnings: what is to be doubted.
    """

    fitted: Fit
    runs: Runs
    intervals: Mapping[str, Sequence[float]] | None
    vary: str | None
    refits: Sequence[Mapping[str, float]]
    warnings: Sequence[str]

    @property
    def values(self) -> dict[str, float]:
        """The parameters by name."""
        return self.fitted.values

    def predict(self, **columns: np.ndarray | float) -> np.ndarray:
        """What the law predicts (a loss: nats per token) of columns by name: `predict(params=1e9, tokens=2e10)`."""
        return self.fitted.predict(columns)

    def __str__(self) -> str:
        lines = [f"{self.fitted.problem.law.name}, {len(self.runs)} runs, objective {self.fitted.objective:.6g}"]
        for name, value in self.values.items():
            its = (self.intervals or {}).get(name)
            lines.append(f"{name:12} {value:>12.6g}" + (f"   [{its[0]:.6g}, {its[1]:.6g}]" if its else ""))
        return "\n".join([*lines, *(f"warning: {each}" for each in self.warnings)])

    __repr__ = __str__


def fit(
    table: str | os.PathLike | Sequence[Mapping[str, Any]],
    law: str | Law = "chinchilla",
    columns: Mapping[str, str] | None = None,
    frozen: str | Mapping[str, float] | None = None,
    bounds: Mapping[str, Sequence[float]] | None = None,
    drop_largest_losses: int = 0,
    starts: int = STARTS,
    resamples: int = 1000,
    seed: int = 0,
    allow: Sequence[str] = (),
) -> TableFit:
    """Fits a law to a table of runs: the estimate, intervals and doubts of the job `fit_law`, without a folder and a page.

    Args:
        table: a CSV or JSONL file, or the runs themselves: [{"params": 1e6, "tokens": 2e7, "loss": 3.1}, ...].
        law: its name (docs/scaling.md), or a law of your own.
        columns, frozen, bounds, drop_largest_losses, starts, resamples, seed, allow: as of the job.

    Raises:
        ConfigurationError: the law cannot be fitted to these runs.
        CptjaxError: the law is finite nowhere.
    """
    one = law_named(law) if isinstance(law, str) else law
    if isinstance(table, str | os.PathLike):
        runs = read_runs(os.fspath(table), columns)
    else:
        runs = runs_of([(number, dict(row)) for number, row in enumerate(table, start=1)], "the runs given", columns)
    ready = prepare([one], runs, frozen, bounds, drop_largest_losses, allow)
    warnings = list(ready.warnings)
    fitted = fitting.fit(ready.problems[one.name], starts, seed)
    drawn, vary = refits(fitted, ready.runs, resamples, seed, warnings)
    ranges = None if drawn is None else intervals(fitted, drawn)
    warnings += doubts(fitted, profiles(fitted))
    return TableFit(fitted, ready.runs, ranges, vary, refitted(fitted, drawn), warnings)


def refitted(fitted: Fit, drawn: np.ndarray | None) -> list[dict[str, float]]:
    """Of each of the bootstrap's refits the parameters by name, in the law's order."""
    law, frozen = fitted.problem.law, fitted.problem.frozen
    return [] if drawn is None else [{**law.values_from(row), **frozen} for row in drawn]


def _without_largest(runs: Runs, target: str, count: int) -> Runs:
    if count >= len(runs):
        raise ConfigurationError(f"DROP_LARGEST_LOSSES = {count} leaves none of {len(runs)} runs.")
    order = np.argsort(runs.numbers[target], kind="stable")
    return runs.only(np.sort(order[: len(runs) - count]))


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
