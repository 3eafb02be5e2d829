"""What a checkpoint says about its run: the lineage up to a step, counted and not estimated (PROTOCOL.md 1 and 2)."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from cptjax.checkpoints.lineage import Exposure, LearningRate, Lineage, RunRecord, StageRecord
from cptjax.checkpoints.store import CheckpointStore
from cptjax.data.sources import as_plain
from cptjax.errors import ConfigurationError
from cptjax.models.flops import flops_per_token
from cptjax.reporting.folder import git_state
from cptjax.training.plan import RunPlan
from cptjax.training.run_data import rows_record

_HISTORY_POINTS = 64


def lineage_at(plan: RunPlan, verb: str, step: int, passed: Sequence[int] = ()) -> Lineage:
    """The ancestry of the checkpoint that `plan`, started by `verb`, saves after `step` steps.

    passed: steps (counted from 0) that were passed over: what they would have read does not count.
    """
    commit = git_state()
    record = RunRecord(
        verb=verb,
        run=str(plan.folder.path),
        commit=commit["commit"] if commit else None,
        stages=_stages(plan, step, passed),
        exposures=_exposures(plan, step, passed),
        learning_rate=_learning_rate(plan, step),
        seed=plan.run.seed,
        started_from=plan.started_from,
        longer_context=dict(plan.longer_context) or None,
    )
    return plan.ancestors.then(record)


def checkpoint_metadata(plan: RunPlan, verb: str, step: int, passed: Sequence[int] = ()) -> dict[str, Any]:
    """What is saved beside the arrays of `step`."""
    return {
        "lineage": lineage_at(plan, verb, step, passed).to_json(),
        "verb": verb,
        "plan": plan.identity(),
        "tokens": (step - len(passed)) * plan.batch_tokens,
        "passed_over": list(passed),
        "has_optimizer": True,
        "model": plan.config.to_json(),
    }


def passed_over(store: CheckpointStore) -> list[int]:
    """The steps (counted from 0) that the run was told to pass over before its newest checkpoint."""
    latest = store.latest()
    return [] if latest is None else list(store.metadata(latest).get("passed_over", ()))


def data_record(plan: RunPlan) -> dict[str, Any]:
    """What each source of the run is: as it was named, its files, where its rows are, and what it was for."""
    record = {}
    for name, source in plan.prepared.items():
        held_out = source.validation_manifest
        record[name] = {
            "given": as_plain(plan.run.all_sources[name]),
            "role": "trained" if name in plan.data.names else "evaluated only",
            "files": list(source.files),
            **rows_record(source.train, source.validation),
            "fingerprint": source.info.fingerprint,
            "split": source.train_manifest.settings["split"],
            "documents": source.info.documents,
            "tokens": source.info.tokens,
            "bytes": source.info.bytes,
            "held_out_documents": held_out.documents if held_out else 0,
            "held_out_tokens": held_out.tokens if held_out else 0,
        }
    return record


def starting_verb(plan: RunPlan, store: CheckpointStore) -> str:
    """The verb by which this run began, also when it is being resumed."""
    latest = store.latest()
    return type(plan.run.start).__name__.lower() if latest is None else store.metadata(latest)["verb"]


def refuse_another_run(plan: RunPlan, store: CheckpointStore) -> None:
    """Compares the plan with the one that the run in this folder was started under.

    Raises:
        ConfigurationError: they differ in something that decides the numbers; shows what.
    """
    latest = store.latest()
    if latest is None:
        return
    saved, now = store.metadata(latest).get("plan", {}), json.loads(json.dumps(plan.identity()))
    differences = [f"  {name}: {old} there, {new} now" for name, old, new in _differences(saved, now)]
    if differences:
        more = [f"  and {len(differences) - 8} more"] if len(differences) > 8 else []
        raise ConfigurationError(
            "\n".join(
                [f"'{plan.folder.path}' holds another run, at step {latest:,}; resuming it would mix the two."]
                + differences[:8]
                + more
                + ["  Name another OUTPUT_DIR, or start from that checkpoint with Branch or Initialize."]
            )
        )


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, old value, new value) of every leaf that differs between two trees of plain data."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, pair in enumerate(zip(old, new, strict=True)) for d in _differences(*pair, f"{name}[{i}]")]
    return [] if old == new else [(name, old, new)]


def _stages(plan: RunPlan, step: int, passed: Sequence[int]) -> tuple[StageRecord, ...]:
    per_token = flops_per_token(plan.config, plan.sequence_length).training
    records, begin = [], 0
    for stage in plan.data.stages:
        end = min(step, begin + stage.steps)
        if end <= begin:
            break
        before, after = plan.data.exposures(begin), plan.data.exposures(end)
        unread = [each for each in passed if begin <= each < end]
        without = _rows_of(plan, unread)
        rows = {name: after[name] - before[name] - without[name] for name in after}
        tokens = plan.data.tokens(rows)
        text = sum(rows[name] * info.bytes / info.rows for name, info in plan.data.sources.items())
        positions = (end - begin - len(unread)) * plan.batch_tokens
        records.append(
            StageRecord(
                stage.name, round(sum(tokens.values())), round(text), round(positions * per_token), dict(stage.weights)
            )
        )
        begin += stage.steps
    return tuple(records)


def _rows_of(plan: RunPlan, steps: Sequence[int]) -> dict[str, int]:
    """Rows of each source in these steps."""
    counts = np.zeros(len(plan.data.names), np.int64)
    for step in steps:
        counts += np.bincount(plan.data.rows(step)[0], minlength=len(counts))
    return dict(zip(plan.data.names, counts.tolist(), strict=True))


def _exposures(plan: RunPlan, step: int, passed: Sequence[int]) -> dict[str, Exposure]:
    rows, without = plan.data.exposures(step), _rows_of(plan, passed)
    read = {name: rows[name] - without[name] for name in rows}
    tokens = plan.data.tokens(read)
    return {
        name: Exposure(info.fingerprint, rows[name], round(tokens[name]), read[name] / info.rows)
        for name, info in plan.data.sources.items()
    }


def _learning_rate(plan: RunPlan, step: int) -> LearningRate:
    values = plan.learning_rate.at(np.arange(step + 1))
    points = np.unique(np.linspace(0, step, min(step + 1, _HISTORY_POINTS)).round().astype(int))
    return LearningRate(
        peak=float(values.max()),
        final=float(values[-1]),
        schedule=plan.learning_rate.describe(),
        history=tuple((int(p) * plan.batch_tokens, float(values[p])) for p in points),
    )
