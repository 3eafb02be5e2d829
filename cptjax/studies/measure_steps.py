"""An evaluation of a finished study's runs for each size and seed, as steps of another study: exams, own samples, curves.

A size and seed is one trunk and what continues it: the trunk is the base that the others are compared with.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.counts import count
from cptjax.errors import ConfigurationError
from cptjax.reporting.metrics import read_metrics
from cptjax.studies.concluded import table_of
from cptjax.studies.step import Step


def measure_steps(
    study: str,
    base: str,
    curves: Sequence[str],
    also: Sequence[str] = (),
    sizes: Sequence[str | float] | None = None,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    first: Sequence[Step] = (),
    last: Sequence[Step] = (),
) -> list[Step]:
    """`first`, an `evaluate` for each size and seed (`exams_A_seed0`), `last`.

    Args:
        study: the folder of a study that has concluded.
        base: the arm that the others continue; curves: the arms whose points are CURVES, the first the one that others are held
            against; also: arms that are evaluated and are no curve.
        sizes: of the study; None: all; seeds: of them.
        settings: macros of gin/jobs/evaluate.gin, of every evaluation.

    Raises:
        ConfigurationError: the study has not concluded, or has not these runs, or an arm has several of one budget.
    """
    rows = read_metrics(table_of(study))
    there = list(dict.fromkeys(row["size"] for row in rows))
    asked = there if sizes is None else [str(size) for size in sizes]
    common = [settings] if isinstance(settings, Mapping) else list(settings)
    steps = []
    for size in asked:
        for seed in seeds:
            found = {arm: _runs(study, rows, arm, size, seed, there) for arm in (base, *curves, *also)}
            if len(found[base]) > 1:
                raise ConfigurationError(
                    f"STUDY = '{study}': the arm {base!r} has several runs at {size}, seed {seed}."
                )
            own = _own_settings(found, base, curves)
            steps.append(Step(f"exams_{size}_seed{seed}", "gin/jobs/evaluate.gin", [*common, own]))
    return [*first, *steps, *last]


def _own_settings(found: Mapping[str, Mapping[str, str]], base: str, curves: Sequence[str]) -> dict[str, Any]:
    """What an evaluation is told of the arms' runs, each arm's label -> folder."""
    return {
        "CHECKPOINTS": {label: folder for runs in found.values() for label, folder in runs.items()},
        "BASE": next(iter(found[base])),
        "CURVES": {arm: list(found[arm]) for arm in curves},
    }


def _runs(
    study: str, rows: Sequence[Mapping[str, Any]], arm: str, size: str, seed: int, there: Sequence[str]
) -> dict[str, str]:
    """Label -> folder of an arm's runs at one size and seed, by their budgets. The study may have been moved since.

    Budgets that round alike are labelled with all their digits: a label is one run.
    """
    mine = [row for row in rows if (row["arm"], row["size"], row["seed"]) == (arm, size, seed)]
    if not mine:
        known = ", ".join(dict.fromkeys(row["arm"] for row in rows))
        raise ConfigurationError(
            f"STUDY = '{study}': no run of the arm {arm!r} at size {size!r}, seed {seed}, is there; it has the arms {known} and the"
            f" sizes {', '.join(there)}."
        )
    mine.sort(key=lambda row: row["budget"])
    budgets = [row["budget"] for row in mine]
    if twice := [one for one, other in itertools.pairwise(budgets) if one == other]:
        raise ConfigurationError(
            f"STUDY = '{study}': the arm {arm!r} has several runs of {twice[0]:,} tokens at {size}, seed {seed}; a curve has one."
        )
    said = [count(budget) for budget in budgets]
    folder = str(study).rstrip("/")
    return {
        f"{arm} {short if said.count(short) == 1 else row['budget']}": "/".join([folder, *row["run"].split("/")[-2:]])
        for short, row in zip(said, mine, strict=True)
    }
