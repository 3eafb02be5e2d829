"""A study's finished runs as a table that `fit_law` reads: one run a row, all of it from the runs' own ledgers (PROTOCOL.md 1)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cptjax.checkpoints.lineage import Lineage
from cptjax.checkpoints.source import open_checkpoint
from cptjax.errors import CptjaxError
from cptjax.files import read_json
from cptjax.studies.intervals import Measured
from cptjax.training.group import DOCUMENTS


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run of a study.

    Attributes:
        row: its line of the table. documents: by source "names", "nats", "tokens", "bytes" of each held-out document.
        trunk: the run that it continues, by folder; its own name at random weights.
        seconds: of its training; None where it was too short to be timed.
    """

    row: Mapping[str, Any]
    documents: Mapping[str, Mapping[str, list]]
    trunk: str
    seconds: float | None


def read_run(point: Mapping[str, Any]) -> Run:
    """The run of a point as the conclusion is told of it (studies/grid_steps.py).

    Raises:
        CptjaxError: the run is not there or not finished.
    """
    folder = epath.Path(point["folder"])
    if not (folder / "finished.json").exists():
        raise CptjaxError(f"the study's run '{folder}' is not finished.")
    opened, finished = open_checkpoint(folder), read_json(folder / "finished.json")
    documents, lineage = read_json(folder / DOCUMENTS), opened.lineage
    last = lineage.runs[-1]
    own = sum(stage.tokens for stage in last.stages)
    flops, before = sum(stage.flops for stage in last.stages), lineage.tokens - own
    tokens, prior, spent = round(own * (1 - point["replay"])), before, flops
    if point["as_prior"]:  # a trunk that is only cooled down: nothing but prior tokens
        tokens, prior, spent = 0, lineage.tokens, lineage.flops
    elif _cools_down(lineage):  # the same text at a falling rate: one budget, of trunk and cooldown together
        tokens, prior, spent = round(lineage.tokens * (1 - point["replay"])), 0, lineage.flops
    counts = lineage.origin.parameters
    row = {
        "arm": point["arm"],
        "size": point["size"],
        "seed": point["seed"],
        "trunk": trunk_of(last.started_from),
        "params": counts.total,
        "params_non_embedding": counts.non_embedding,
        "tokens": tokens,
        "prior_tokens": prior,
        "unique_tokens": round(tokens / max(1.0, epochs_of(lineage, point["target"]))),
        "replay": point["replay"],
        "target_share": point["target_share"],
        "budget": point["tokens"],
        "budget_prior": point["prior"],
        "learning_rate": last.learning_rate.peak,
        "annealed": last.annealed,
        "flops": spent,
        "flops_own": flops,
        "flops_with_trunk": lineage.flops,
        "loss": _loss(documents, point["target"]),
        "bits_per_byte": _bits(documents, point["target"]),
        "target": point["target"],
        **{f"loss_{name}": _loss(documents, name) for name in documents},
        **{f"bits_per_byte_{name}": _bits(documents, name) for name in documents},
        "tokens_per_second": finished.get("tokens_per_second"),
        "run": str(folder),
    }
    speed = finished.get("tokens_per_second")
    return Run(row, documents, trunk_of(last.started_from) or str(folder), own / speed if speed else None)


def on_source(row: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The row with the loss on another source than its arm's target."""
    return {**row, "target": source, **{name: row[f"{name}_{source}"] for name in ("loss", "bits_per_byte")}}


def measured(runs: Sequence[Run], target: str, metric: str) -> Measured:
    """The runs of one arm at one point, for an interval.

    Raises:
        CptjaxError: they were not measured on the same documents.
    """
    names = [run.documents[target]["names"] for run in runs]
    if any(each != names[0] for each in names):
        raise CptjaxError(
            f"runs of the study were measured on different documents of {target!r}; they cannot be compared."
        )
    units = np.array(runs[0].documents[target]["tokens" if metric == "loss" else "bytes"], float)
    nats = np.array([run.documents[target]["nats"] for run in runs], float)
    return Measured(nats, units * (1 if metric == "loss" else math.log(2)), tuple(run.trunk for run in runs))


def by_point(runs: Sequence[Run]) -> dict[tuple, list[Run]]:
    """Runs that differ in seed alone, together: by arm, size, prior and budget."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        key = tuple(run.row[name] for name in ("arm", "size", "budget_prior", "budget"))
        found.setdefault(key, []).append(run)
    return found


def trunk_of(started_from: str) -> str:
    """The folder that a run started from, without where the study lies.

    Nor at which of its steps: what branches off one plateau, early or late, has one trunk's luck.
    """
    return "/".join(started_from.rsplit(", step ", 1)[0].split("/")[-2:]) if started_from else ""


def epochs_of(lineage: Lineage, target: str) -> float:
    """How often the tokens of the row were read: those of the target, or of the source read most where it is not read.

    Of a cooldown, whose row is of trunk and cooldown together, by both.
    """
    read = lineage.exposures() if _cools_down(lineage) else lineage.runs[-1].exposures
    return (read[target] if target in read else max(read.values(), key=lambda x: x.epochs)).epochs


def _cools_down(lineage: Lineage) -> bool:
    """Whether the last run goes on with its trunk's blend and its moments."""
    if len(lineage.runs) < 2 or lineage.runs[-1].verb != "branch":
        return False
    return dict(lineage.runs[-1].stages[-1].weights) == dict(lineage.runs[-2].stages[-1].weights)


def _loss(documents: Mapping[str, Mapping[str, list]], source: str) -> float:
    return sum(documents[source]["nats"]) / sum(documents[source]["tokens"])


def _bits(documents: Mapping[str, Mapping[str, list]], source: str) -> float:
    return sum(documents[source]["nats"]) / math.log(2) / sum(documents[source]["bytes"])
