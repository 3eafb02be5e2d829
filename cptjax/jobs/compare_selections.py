"""What the selections of a finished study save over one of its arms: at equal loss, with and without what they cost."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence

from cptjax.configuration import resolved_config
from cptjax.errors import ConfigurationError
from cptjax.reporting.folder import RunFolder
from cptjax.reporting.metrics import read_metrics
from cptjax.reporting.wording import listed
from cptjax.studies.concluded import is_smoke, table_of
from cptjax.studies.selection_charges import Charge, read_charges
from cptjax.studies.selection_gain import selection_gains
from cptjax.studies.selection_gain_page import selection_gain_page

GAINS = "gains.json"


def compare_selections(
    study: str,
    baseline: str,
    output_dir: str,
    arms: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    dry_run: bool = False,
) -> None:
    """Writes `<output_dir>/gains.json` and gains.md, from the study's table and its selections' records; nothing is measured again.

    Args:
        study: the folder of a study with a grid that has concluded, whose arms read selections (`select_data`).
        baseline: the arm that the others are held against; arms: those; None: all others, in the study's order.
        texts: held-out sources that curves are read on; None: the baseline's target.

    Raises:
        ConfigurationError: the study has not concluded, an arm or text is not its, what a selection cost is not known
            (`studies.selection_charges`), curves that cannot be compared (`studies.selection_gain`).
    """
    table = table_of(study)
    rows = read_metrics(table)
    there = list(dict.fromkeys(row["arm"] for row in rows))
    if unknown := [arm for arm in (baseline, *(arms or ())) if arm not in there]:
        raise ConfigurationError(
            f"the study has no runs of the arm {unknown[0]!r}; it has {', '.join(map(repr, there))}."
        )
    others = [arm for arm in there if arm != baseline] if arms is None else [arm for arm in arms if arm != baseline]
    if not others:
        raise ConfigurationError(f"ARMS = {arms!r}: name an arm beside the baseline {baseline!r}.")
    read = [next(row["target"] for row in rows if row["arm"] == baseline)] if texts is None else list(texts)
    charges = read_charges(study, rows, [baseline, *others])
    settings = {
        "runs_sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "baseline": baseline,
        "arms": others,
        "texts": read,
        "charges": {arm: json.loads(json.dumps(dataclasses.asdict(charge))) for arm, charge in charges.items()},
    }
    folder = RunFolder(output_dir)
    if folder.holds(GAINS, settings):
        print(f"{folder.path} is finished; nothing to do.")
        return
    gains = [
        gain
        for text in read
        for arm in others
        for gain in selection_gains(rows, baseline, arm, text, charges[arm], charges[baseline])
    ]
    if dry_run:
        print(f"{listed(others)} would be held against {baseline} on {listed(read)} into {folder.path}")
        return
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})
    result = {
        "charges": settings["charges"],
        "gains": [dataclasses.asdict(gain) for gain in gains],
        "notes": _notes(charges),
        "smoke": is_smoke(study),
        "settings": settings,
    }
    page = selection_gain_page(result)
    folder.write("gains.md", page)
    folder.write(GAINS, json.dumps(result, indent=1, allow_nan=False) + "\n")
    folder.finish({"job": "compare_selections", "arms": len(others)})
    print(page)
    print(f"wrote {folder.path / GAINS} and gains.md")
    if lock is not None:
        lock.close()


def _notes(charges: Mapping[str, Charge]) -> list[str]:
    """How what was done once is shared, and what nobody is charged."""
    said = [
        "Charged in whole, one run pays a selection and its embedder, as who trains one model on it does. Its equal part is of what"
        " was made once: of the selection by all runs of the study that read it, of the embedder by all that it serves."
    ]
    unknown = dict.fromkeys(base for charge in charges.values() for base in charge.unknown)
    said += [f"The FLOPs of `{base}`, which an embedder began with, are not known and not charged." for base in unknown]
    return said
