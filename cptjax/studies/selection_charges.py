"""What the selections that a study's arms read have cost, from the selections' own records (selection.json).

Which arm reads which selection its declaration says (blends) and the runs' data.json (the files of each source).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.data.sources import SELECTED, SELECTION
from cptjax.data.text_digests import file_digest
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.studies.concluded import declared_of

DATA = "data.json"  # of a group of runs


@dataclasses.dataclass(frozen=True)
class Charge:
    """FLOPs of the selections that an arm reads. Each is counted once, whatever number of runs read it.

    Attributes:
        selections: their folders' names; none where the arm reads no selection.
        embedding, comparing: of the selections; embedder: what training their embedders took, each once.
        runs: of the study that read these selections, the other arms' included; embedder_runs: that read one by these embedders.
        share: of one run, where all runs that use a selection or an embedder bear equal parts of it.
        unknown: Hugging Face folders that embedders began with, whose FLOPs nobody knows and nobody is charged.
    """

    selections: tuple[str, ...] = ()
    embedding: float = 0.0
    comparing: float = 0.0
    embedder: float = 0.0
    runs: int = 0
    embedder_runs: int = 0
    share: float = 0.0
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """All of it."""
        return self.embedding + self.comparing + self.embedder


def read_charges(study: str, rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> dict[str, Charge]:
    """The charge of each of these arms.

    Args:
        rows: the study's table; all of them, for what is shared is shared by all runs.

    Raises:
        ConfigurationError: the study keeps no declaration, or not which files its runs read; a selection is gone, has changed
            since, or was made before selections kept their FLOPs.
    """
    blends = {arm["name"]: {*arm["blend"], *(arm["then"] or {})} for arm in declared_of(study).get("arms", [])}
    read: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["arm"] in read:
            continue
        if row["arm"] not in blends:
            raise ConfigurationError(
                f"STUDY = '{study}': its declaration does not say what the arm {row['arm']!r} reads."
            )
        read[row["arm"]] = _selections(study, row, blends[row["arm"]])
    return {arm: _charge(read[arm], [read[row["arm"]] for row in rows]) for arm in arms}


def _charge(mine: Mapping[str, Mapping[str, Any]], of_runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> Charge:
    """Of these selections' records by folder, given those of every run of the study."""
    runs = {name: sum(name in theirs for theirs in of_runs) for name in mine}
    embedders = {made["checkpoint"]: made for made in _embedders(mine)}
    users = {
        known: sum(any(made["checkpoint"] == known for made in _embedders(theirs)) for theirs in of_runs)
        for known in embedders
    }
    share = sum((flops["embedding"] + flops["comparing"]) / runs[name] for name, flops in mine.items())
    share += sum(made["training"] / users[known] for known, made in embedders.items())
    return Charge(
        tuple(mine),
        sum(flops["embedding"] for flops in mine.values()),
        sum(flops["comparing"] for flops in mine.values()),
        sum(made["training"] for made in embedders.values()),
        sum(any(name in theirs for name in mine) for theirs in of_runs),
        max(users.values(), default=0),
        share,
        tuple(dict.fromkeys(made["base"] for made in embedders.values() if made["base"] is not None)),
    )


def _embedders(selections: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [flops["embedder"] for flops in selections.values() if flops["embedder"] is not None]


def _selections(study: str, row: Mapping[str, Any], sources: set[str]) -> dict[str, Mapping[str, Any]]:
    """FLOPs by the folder's name of every selection among the sources of a run."""
    group = epath.Path(study).expanduser() / row["run"].split("/")[-2] / DATA
    if not group.exists():
        raise ConfigurationError(f"STUDY = '{study}': there is no {group}, which says what the run {row['run']} read.")
    data = read_json(group)
    found = {}
    for source in sorted(sources):
        for file in data[source]["files"]:
            path = epath.Path(file.get("path", ""))
            if path.name == SELECTED:
                found[path.parent.name] = _flops(study, source, path, file["sha256"])
    return found


def _flops(study: str, source: str, path: epath.Path, digest: str) -> Mapping[str, Any]:
    """What selection.json beside the file says; the study may have been moved since."""
    folders = [epath.Path(study).expanduser() / path.parent.name, path.parent]
    folder = next((each for each in folders if (each / SELECTION).exists() and (each / SELECTED).exists()), None)
    if folder is None:
        raise ConfigurationError(
            f"the source {source!r} was '{path}': there is no selection any more that says what it cost."
        )
    if file_digest(str(folder / SELECTED)) != digest:
        raise ConfigurationError(
            f"'{folder / SELECTED}' is not what the study's runs read of {source!r}: it was selected anew."
        )
    flops = read_json(folder / SELECTION).get("flops")
    if flops is None:
        raise ConfigurationError(
            f"'{folder}' was selected before selections kept their FLOPs.\n"
            f"  Remove {folder / SELECTION} and give the command of that step again (`--dry_run` of the study prints it): what its"
            " stages hold is not done again, and the same text is written."
        )
    return flops
