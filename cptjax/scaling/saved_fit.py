"""Fits as fit_law leaves them in a folder, read back for decisions."""

import dataclasses
from collections.abc import Mapping, Sequence

from etils import epath

from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.scaling.decisions import Values
from cptjax.scaling.registry import law_named

FIT = "fit.json"
REFITS = "refits.json"  # the bootstrap's parameters, for whoever decides by them


@dataclasses.dataclass(frozen=True)
class SavedFit:
    """A fit that fit_law wrote.

    Attributes:
        estimate: the law with what was fitted.
        refits: the same of each of the bootstrap's refits; empty where there was none.
        ranges: lowest and highest of each of the law's columns among the runs.
    """

    folder: str
    estimate: Values
    refits: Sequence[Values]
    ranges: Mapping[str, tuple[float, float]]
    warnings: Sequence[str]


def read_fit(folder: str, most_refits: int, what: str) -> SavedFit:
    """Reads a fit back, with `most_refits` of its refits.

    Args:
        what: the setting that names the folder, for a message.

    Raises:
        ConfigurationError: there is none, or its law is no law of cptjax.
    """
    path = epath.Path(folder).expanduser()
    if not (path / FIT).exists():
        raise ConfigurationError(f"{what} = '{folder}' holds no {FIT}. Name a folder that fit_law wrote.")
    found = read_json(path / FIT)
    law = law_named(found["law"])
    refits = []
    if (path / REFITS).exists():
        table = read_json(path / REFITS)
        refits = [Values(law, dict(zip(table["params"], row, strict=True))) for row in table["values"][:most_refits]]
    ranges = {name: tuple(pair) for name, pair in found["fitted_range"].items()}
    return SavedFit(str(folder), Values(law, found["params"]), tuple(refits), ranges, tuple(found["warnings"]))
