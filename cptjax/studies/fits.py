"""The laws that a finished study's tables are fitted by, as steps of another study: one command fits them all."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.errors import ConfigurationError
from cptjax.studies.grid_steps import CONCLUSION
from cptjax.studies.step import Step


def law_steps(study: str, fits: Sequence[Mapping[str, Any]], settings: Mapping[str, Any] | None = None) -> list[Step]:
    """A `fit_law` for each of `fits`, in order.

    Args:
        study: the folder of a study that has concluded.
        fits: each {"name", "arm", "LAW"} and more macros of gin/jobs/fit_law.gin; FROZEN = "{name}" takes those
            of an earlier fit.
        settings: macros of all of them.

    Raises:
        ConfigurationError: the study has no table of that arm.
    """
    steps = []
    for each in fits:
        table = epath.Path(study).expanduser() / CONCLUSION / "tables" / f"{each['arm']}.jsonl"
        if not table.exists():
            raise ConfigurationError(
                f"STUDY = '{study}': it has no table of the arm {each['arm']!r} ({table}).\n  Run the study to its end first."
            )
        own = {name: value for name, value in each.items() if name not in ("name", "arm")}
        steps.append(Step(each["name"], "gin/jobs/fit_law.gin", [dict(settings or {}), {"RUNS": str(table), **own}]))
    return steps
