"""A study that has concluded, as those read it who ask more of it than its verdict."""

from typing import Any

from etils import epath

from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.studies.declaration import DECLARATION
from cptjax.studies.grid_steps import CONCLUSION


def table_of(study: str) -> epath.Path:
    """The study's table of runs.

    Raises:
        ConfigurationError: it has not concluded.
    """
    table = epath.Path(study).expanduser() / CONCLUSION / "runs.jsonl"
    if not table.exists():
        raise ConfigurationError(
            f"STUDY = '{study}': it has no table of runs ({table}).\n  Run the study to its end first."
        )
    return table


def declared_of(study: str) -> dict[str, Any]:
    """What the study declared before its first run (`studies.grid.Grid.declared`); {} where nothing is kept of it."""
    path = epath.Path(study).expanduser() / DECLARATION
    return read_json(path)["declared"] if path.exists() else {}


def is_smoke(study: str) -> bool:
    """Whether it was declared a smoke run."""
    return bool(declared_of(study).get("smoke"))
