"""What a study says before its first run, and is held to: its contrast, grid, seeds and stopping rule (PROTOCOL.md 14)."""

import hashlib
import json
from collections.abc import Sequence

from cptjax.counts import count
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.reporting.folder import RunFolder, now
from cptjax.reporting.progress import duration
from cptjax.studies.cost import costs, read_verdict, total
from cptjax.studies.grid import Grid
from cptjax.studies.ledger import recorded_steps
from cptjax.studies.power import seeds_needed, smallest_effect
from cptjax.studies.step import Step

DECLARATION = "declaration.json"


def declare(grid: Grid, listed: Sequence[Step], folder: RunFolder) -> None:
    """Writes the declaration with its digest into the study's folder, or compares it with the one that is there.

    Args:
        listed: the study's steps that are not the grid's: what the arms' text is made by.

    Raises:
        ConfigurationError: the study was declared otherwise before its first run; or something has run and it is not declared.
    """
    steps = [{"name": step.name, "gin_files": step.gin_files, "settings": step.settings} for step in listed]
    said = json.loads(json.dumps(grid.declared() | {"steps": steps}))
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    path = folder.path / DECLARATION
    if not path.exists():
        if begun := recorded_steps(folder.path):
            raise ConfigurationError(
                f"the study in '{folder.path}' has no {DECLARATION}, and {begun[0]['name']!r} was begun already: what is declared"
                " now may be declared after a look at the runs.\n"
                f"  Put the {DECLARATION} back that was written before the first run, or name another OUTPUT_DIR."
            )
        folder.write(DECLARATION, json.dumps({"time": now(), "sha256": digest, "declared": said}, indent=1) + "\n")
        return
    before = read_json(path)
    if before["sha256"] != digest:
        changed = sorted(key for key in said if said[key] != before["declared"].get(key))
        raise ConfigurationError(
            f"the study in '{folder.path}' was declared otherwise, at {before['time']} before its first run:"
            f" {', '.join(changed) or 'fields were added'} changed.\n"
            "  What is changed after a look at the runs is no test of it. Name another OUTPUT_DIR for another declaration."
        )


def describe_contrast(grid: Grid) -> list[str]:
    """What the study is to find out."""
    it = grid.contrast
    return [
        f"primary contrast: {it.better} below {it.worse} at size {it.size} after {it.tokens:,.0f} tokens, in {it.metric};"
        f" {grid.seeds} seed{'s' if grid.seeds > 1 else ''}; smallest effect worth finding {it.effect:g}"
        + ("; a smoke run: no verdict" if grid.smoke else "")
    ]


def describe_pilot(grid: Grid) -> list[str]:
    """How many seeds the contrast needs by a pilot's deviations, and what they cost.

    Raises:
        ConfigurationError: the pilot is no finished study.
    """
    if grid.pilot is None:
        return [
            "  How many seeds the contrast needs is told by a pilot: Grid.pilot (PILOT), the folder of a study that has run."
        ]
    found = read_verdict(grid.pilot, "Grid.pilot")["difference"]
    if found["deviation"] is None:
        return [f"  The pilot '{grid.pilot}' had one seed of an arm: it does not tell how seeds vary."]
    told = found["deviation"], found["documents"], found["paired"]
    needed, smallest = seeds_needed(grid.contrast.effect, *told), smallest_effect(grid.seeds, *told)
    all_of = total(costs(grid))
    lines = [
        f"  By the pilot '{grid.pilot}' (deviation between seeds {found['deviation']:.4f}), {grid.seeds} seeds find an effect of"
        f" {smallest:.4f} with a chance of 80%;"
    ]
    if needed is None:
        return [*lines, f"  no number of seeds finds {grid.contrast.effect:g}: hold out more documents."]
    share = needed / grid.seeds
    hours = "" if all_of.seconds is None else f" and at most {duration(all_of.seconds * share)}"
    return [
        *lines,
        f"  {grid.contrast.effect:g} takes {needed} seeds: at most {count(all_of.flops * share)} FLOPs{hours} for this grid.",
    ]
