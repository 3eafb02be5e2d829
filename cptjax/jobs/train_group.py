"""Many small runs of one model in one process: what a study's grid is trained by."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.counts import count
from cptjax.models.flops import flops_per_token
from cptjax.reporting.folder import DATA, RunFolder
from cptjax.training.group import DIVERGED, GroupRun, train_runs
from cptjax.training.members import planned, read_members
from cptjax.training.records import data_record
from cptjax.training.run import Run
from cptjax.training.signals import stop_at_once, stop_requests


def train_group(
    run: Run, runs: Sequence[Mapping[str, Any]], side_by_side: float | None = None, dry_run: bool = False
) -> None:
    """Trains each of `runs` into `<output_dir>/<name>`; the same command again goes on with those that are not finished.

    A run that was interrupted begins again: they are small. Each is measured once, after its last step, document by document.

    Args:
        run: what they have in common; its start, stages, tokens, seed and peak learning rate are each run's own.
        runs: `training.members.Member`s as dicts.
        side_by_side: so many runs of equal length in one step; None: all on one accelerator, one by one elsewhere. Of several
            devices a multiple, each with whole runs.

    Raises:
        ConfigurationError: what a run asks for cannot be. Stopped: a signal came; finished runs are kept.
        CptjaxError: a run diverged: its guard's patience is at an end, or its loss is not finite.
    """
    members = read_members(runs)
    width = None if side_by_side is None else whole_number(side_by_side, "SIDE_BY_SIDE", minimum=1)
    folder = RunFolder(run.output_dir)
    if dry_run:
        print(f"{len(members)} runs in {folder.path}: {', '.join(member.name for member in members)}")
        return
    if folder.finished() is not None:
        print(f"{folder.path} is finished ({len(members)} runs); nothing to do.")
        return
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})
    with stop_at_once():
        group = [planned(run, member, folder.path) for member in members]
    folder.write(DATA, json.dumps(group_data(group), indent=1, ensure_ascii=False) + "\n")
    with stop_requests() as stop:
        train_runs(group, width, resolved_config(), sys.argv, stop)
    print("\n".join(describe_group(group)))
    folder.finish({"job": "train_group", "runs": [one.name for one in group]})
    print(f"done: {folder.path}")
    if lock is not None:
        lock.close()


def group_data(group: Sequence[GroupRun]) -> dict[str, Any]:
    """The text of all runs: a source is trained on if any of them reads it."""
    merged: dict[str, Any] = {}
    for one in group:
        for name, source in data_record(one.plan).items():
            if name not in merged or source["role"] == "trained":
                merged[name] = source
    return merged


def describe_group(group: Sequence[GroupRun]) -> list[str]:
    """A line for each finished run: what it read, and what came of it."""
    lines = []
    for one in group:
        summary = one.plan.folder.finished()
        if DIVERGED in summary:
            lines.append(
                f"{one.name}: peak {one.plan.learning_rate.peak:.3g}, diverged within {summary['steps']:,} steps"
            )
            continue
        flops = flops_per_token(one.plan.config, one.plan.sequence_length).training * one.plan.batch_tokens
        losses = ", ".join(
            f"{name.split('/')[1]} {value:.4f}" for name, value in summary.items() if name.endswith("bits_per_byte")
        )
        lines.append(
            f"{one.name}: {count(one.plan.steps * one.plan.batch_tokens)} tokens, {count(flops * one.plan.steps)} FLOPs, peak"
            f" {one.plan.learning_rate.peak:.3g}, {summary['tokens_per_second'] or 0:,.0f} tokens/s; bits/byte: {losses}"
        )
    return lines
