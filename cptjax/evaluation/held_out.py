"""Whether what an evaluation holds out was held out from the runs that it evaluates, as far as their folders tell."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.checkpoints.lineage import RunRecord
from cptjax.data.splits import SplitSettings
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.evaluation.compared import Compared
from cptjax.files import read_json

DATA = "data.json"  # of a run's folder: what it was trained on, and what was held out of it (training/records.py)
MACROS = {"fraction": "VALIDATION_FRACTION", "tokens": "VALIDATION_TOKENS", "near_duplicates": "NEAR_DUPLICATES"}

Texts = Mapping[str, Sequence[str]]  # by source the sha256 of everything that it is read from


def refuse_trained_text(compared: Sequence[Compared], texts: Texts, split: SplitSettings) -> list[str]:
    """Refuses text as held out that a checkpoint was trained on, in its run or in one that this started from.

    Documents wait in one line to be held out, whatever the settings: who asks for fewer gets some of the same.

    Args:
        texts: of this evaluation; split: how they are held out.

    Returns:
        What is not known, as sentences. Of a Hugging Face folder, whose training nobody recorded, nothing is said.

    Raises:
        ConfigurationError: a checkpoint, its source, and the settings that the run had.
    """
    unknown = []
    for one in compared:
        runs = one.opened.lineage.runs if one.opened.store is not None else ()
        for run in runs:
            folder = one.opened.path if run is runs[-1] else epath.Path(run.run)  # the run itself may have been moved
            whose = f"{one.label}: " if run is runs[-1] else f"{one.label} comes from the run '{run.run}': "
            trained = _trained(folder, run)
            if trained is None:
                unknown.append(
                    f"{whose}what it held out is not known ('{folder / DATA}' is missing, or of another run)"
                )
                continue
            for name, source in trained.items():
                unknown += (whose + line for line in _compare(one.label, run, name, source, texts, split))
    return list(dict.fromkeys(unknown))


def trained_folders(one: Compared) -> Iterator[tuple[str | None, str, str]]:
    """(folder of its training rows, None where it is gone; their fingerprint; its name) of every source that the run of a
    checkpoint, or one that it started from, was trained on, as far as their folders tell."""
    runs = one.opened.lineage.runs if one.opened.store is not None else ()
    for run in runs:
        folder = one.opened.path if run is runs[-1] else epath.Path(run.run)
        for name, source in (_trained(folder, run) or {}).items():
            there = source.get("rows")
            was = epath.Path(there) if there else None
            places = () if was is None else (was, folder / "rows" / was.parent.name / was.name)
            found = next((str(place) for place in places if place.exists()), None)
            yield found, source["fingerprint"], name


def _trained(folder: epath.Path, run: RunRecord) -> dict[str, Mapping[str, Any]] | None:
    """What `run` was trained on, by source, as the folder tells; None where the folder is not there or is another run's.

    Of a run that was trained in a group (jobs/train_group.py) the group's folder tells, of all of its runs together.
    """
    for place in (folder, folder.parent):
        try:
            held = read_json(place / DATA)
            trained = {name: source for name, source in held.items() if source["role"] == "trained"}
            rows = {name: source["fingerprint"] for name, source in trained.items()}
        except (OSError, CptjaxError, KeyError, TypeError, AttributeError):
            continue
        if all(rows.get(name) == read.fingerprint for name, read in run.exposures.items()):
            return {name: source for name, source in trained.items() if place == folder or name in run.exposures}
    return None


def _compare(
    label: str, run: RunRecord, name: str, source: Mapping[str, Any], texts: Texts, split: SplitSettings
) -> Iterator[str]:
    read = {file["sha256"] for file in source["files"]}
    for here, text in texts.items():
        if read.isdisjoint(text):
            continue
        then = source.get("split")
        if then is None:
            yield f"how its source {name!r} was split is not known (an older cptjax wrote its {DATA})"
        elif changed := _holds_out_more(split, then):
            raise ConfigurationError(
                f"{label!r} was trained on text that this evaluation would call held out:\n"
                f"  the source {name!r} of the run '{run.run}' is {here!r} here, split in another way.\n"
                + "\n".join(f"  {MACROS[key]} was {was} in the run, and is {now} here" for key, (was, now) in changed)
                + "\n  Set these as the run had them."
            )
        elif read != set(text):
            yield (
                f"its source {name!r} and {here!r} here have files in common, but not all: it may have been trained on "
                "documents that are held out here"
            )


def _holds_out_more(split: SplitSettings, then: Mapping[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    """The settings by which `split` may hold out what was not held out then; their old and new values."""
    return [
        (key, (then.get(key), now))
        for key, now, more in (
            ("fraction", split.fraction, split.fraction > then.get("fraction", 0)),
            ("tokens", split.tokens, split.tokens > then.get("tokens", 0)),
            ("near_duplicates", split.near_duplicates, split.near_duplicates != then.get("near_duplicates")),
        )
        if more
    ]
