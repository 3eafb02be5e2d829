"""The laws that a finished study's tables are fitted by, as steps of another study: one command fits them all."""

from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.studies.concluded import table_of
from cptjax.studies.step import Step


def law_steps(study: str, fits: Sequence[Mapping[str, Any]], settings: Mapping[str, Any] | None = None) -> list[Step]:
    """A `fit_law` for each of `fits`, in order.

    Args:
        study: the folder of a study that has concluded.
        fits: each {"name", "arm", "LAW"} and more macros of gin/jobs/fit_law.gin; FROZEN = "{name}" takes those
            of an earlier fit.
        settings: macros of all of them.

    Raises:
        ConfigurationError: the study has not concluded, or has no table of that arm.
    """
    tables = table_of(study).parent / "tables"
    steps = []
    for each in fits:
        table = tables / f"{each['arm']}.jsonl"
        if not table.exists():
            there = ", ".join(sorted(repr(path.stem) for path in tables.glob("*.jsonl"))) or "none"
            raise ConfigurationError(
                f"STUDY = '{study}': it has no table of the arm {each['arm']!r} ({table}); it has {there}."
            )
        own = {name: value for name, value in each.items() if name not in ("name", "arm")}
        steps.append(Step(each["name"], "gin/jobs/fit_law.gin", [dict(settings or {}), {"RUNS": str(table), **own}]))
    return steps
