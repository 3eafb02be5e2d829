"""Whether what an evaluation holds out was held out from the runs that it evaluates, as far as their folders tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.data.prepare import PreparedSource
from cptjax.errors import ConfigurationError
from cptjax.evaluation.compared import Compared
from cptjax.files import read_json

DATA = "data.json"  # of a run's folder: what it was trained on, and what was held out of it (training/records.py)
_MACROS = {"fraction": "VALIDATION_FRACTION", "tokens": "VALIDATION_TOKENS", "near_duplicates": "NEAR_DUPLICATES"}


def refuse_trained_text(compared: Sequence[Compared], rows: Mapping[str, Mapping[str, PreparedSource]]) -> list[str]:
    """Refuses text as held out that a run was trained on: the same source, split by other settings.

    Args:
        rows: by tokenizer's fingerprint what this evaluation holds out.

    Returns:
        What is not known, as sentences: of runs whose folders do not tell.

    Raises:
        ConfigurationError: a checkpoint, its source, and the settings that the run had.
    """
    unknown = []
    for one in compared:
        path = one.opened.path / DATA
        if one.opened.store is None:
            continue
        if not path.exists():
            unknown.append(
                f"{one.label}: its folder does not tell what was held out of its training ({DATA} is missing)"
            )
            continue
        mine = rows[one.tokenizer.fingerprint]
        for name, trained in read_json(path).items():
            if trained.get("role") == "trained":
                _refuse(one, name, trained, mine)
    return unknown


def _refuse(one: Compared, name: str, trained: Mapping[str, Any], mine: Mapping[str, PreparedSource]) -> None:
    texts = {file["sha256"] for file in trained["files"]}
    for source in mine.values():
        if not texts & {file["sha256"] for file in source.files} or "split" not in trained:
            continue
        here = source.train_manifest.settings["split"]
        changed = {
            key: (trained["split"].get(key), here[key]) for key in here if trained["split"].get(key) != here[key]
        }
        if changed:
            raise ConfigurationError(
                f"{one.label!r} was trained on text that this evaluation would call held out: its source {name!r} is"
                f" {source.name!r} here, split in another way.\n"
                + "\n".join(
                    f"  {_MACROS[key]} was {then} in the run, and is {now} here" for key, (then, now) in changed.items()
                )
                + "\n  Set these as the run had them."
            )
