"""The best of several learning rates for an arm of a study, bracketed by worse ones on both sides (PROTOCOL.md 4)."""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.checkpoints.source import open_checkpoint
from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.jobs.train_group import describe_group, group_data
from cptjax.reporting.folder import DATA, RunFolder
from cptjax.studies.rates import Bracket, described_losses, next_rate
from cptjax.training.group import DIVERGED, train_runs
from cptjax.training.members import RATES, planned, read_members
from cptjax.training.run import Run
from cptjax.training.signals import stop_requests


def find_rates(
    run: Run,
    runs: Sequence[Mapping[str, Any]],
    rates: Sequence[float],
    target: str,
    widen: float = 2,
    allow_edge: bool = False,
    side_by_side: float | None = None,
    dry_run: bool = False,
) -> None:
    """Trains one run with each of `rates` and writes `<output_dir>/rates.json`: the best, by held-out loss on `target`.

    Where the best is at an edge, a rate beyond it is tried too, `widen` times at most. A rate whose run diverges is worse than
    any other, and stays in the table.

    Args:
        runs: one `training.members.Member` as a dict; its learning rate is given by `rates`.
        rates: three at least.
        allow_edge: take the best also where it is not bracketed; `rates.json` says so.

    Raises:
        ConfigurationError: fewer than three rates, or the best of all is at the edge, or all diverged.
        Stopped: a signal came; finished runs are kept.
    """
    if len(runs) != 1:
        raise ConfigurationError(f"find_rates has {len(runs)} RUNS: it tries several learning rates on one.")
    (member,) = read_members([{**runs[0], "learning_rate": 0.0}])
    tried = sorted({float(rate) for rate in rates})
    if len(tried) < 3 or tried[0] <= 0:
        raise ConfigurationError(
            f"LEARNING_RATES = {list(rates)}: three different ones at least, above 0 (PROTOCOL.md 4)."
        )
    widen = whole_number(widen, "WIDEN")
    width = None if side_by_side is None else whole_number(side_by_side, "SIDE_BY_SIDE", minimum=1)
    folder = RunFolder(run.output_dir)
    if dry_run:
        print(f"{member.name} at {', '.join(f'{rate:g}' for rate in tried)} in {folder.path}")
        return
    if (summary := folder.finished()) is not None:
        print(f"{folder.path} is finished: {summary['best']:g}; nothing to do.")
        return
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})
    losses: dict[float, float] = {}
    with stop_requests() as stop:
        for widened in range(widen + 1):
            group = [
                planned(
                    run, dataclasses.replace(member, name=f"{member.name}_{rate:g}", learning_rate=rate), folder.path
                )
                for rate in tried
            ]
            folder.write(DATA, json.dumps(group_data(group), indent=1, ensure_ascii=False) + "\n")
            train_runs(group, width, resolved_config(), sys.argv, stop, may_diverge=True)
            losses = {rate: _loss(one.plan.folder.finished(), target) for rate, one in zip(tried, group, strict=True)}
            bracket = Bracket.of(losses)
            if bracket.interior or widened == widen:
                break
            tried = sorted([*tried, next_rate(tried, bracket.best)])
    print("\n".join([*describe_group(group), bracket.describe(member.name)]))
    if not math.isfinite(min(bracket.losses)):
        raise ConfigurationError(
            f"{member.name}: every learning rate diverged ({described_losses(bracket.rates, bracket.losses)}).\n"
            f"  Name lower ones (learning_rates of the arm), and remove {folder.path}."
        )
    if not bracket.interior and not allow_edge:
        raise ConfigurationError(
            f"{bracket.describe(member.name)}.\n  It has been widened {widen} times. Name rates further out"
            " (learning_rates of the arm), or set ALLOW_EDGE = True, which the report will say.\n"
            f"  Remove {folder.path} then."
        )
    own = (open_checkpoint(one.plan.folder.path).lineage.runs[-1] for one in group)
    content = {
        **bracket.as_json(),
        "run": member.name,
        "target": target,
        "tokens": member.tokens,
        "widened": widened,
        "flops": sum(stage.flops for each in own for stage in each.stages),  # of the search: an overhead of the study
    }
    folder.write(RATES, json.dumps(content, indent=1) + "\n")
    folder.finish({"job": "find_rates", "best": bracket.best, "bracketed": bracket.interior})
    print(f"done: {folder.path}")
    if lock is not None:
        lock.close()


def _loss(summary: Mapping[str, Any], target: str) -> float:
    if DIVERGED in summary:
        return math.inf
    name = f"validation/{target}/loss"
    if name not in summary:
        raise ConfigurationError(f"no text of {target!r} is held out, so no learning rate can be chosen by it.")
    return summary[name]
