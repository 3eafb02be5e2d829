"""Stages with weights become a plan of rows (plan.py), or are refused before anything is read."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from cptjax.counts import count
from cptjax.data.blend import ByTemperature, Ramp, Weights, named
from cptjax.data.plan import DataPlan, PlannedStage, SourceInfo
from cptjax.data.shares import integer_parts, parts_of
from cptjax.errors import ConfigurationError

TOKENS, BYTES = "tokens", "bytes"
UNITS = (TOKENS, BYTES)
_RAMP_WHOLE = 2**32  # denominator of a ramp's shares: its pieces' have one of 2**38, and the schedule holds up to 2**40


def plan_data(
    stages: Sequence[tuple[str, Weights, int]],
    sources: Mapping[str, SourceInfo],
    batch_rows: int,
    seed: int,
    max_epochs: float | None = None,
    start_rows: Mapping[str, int] | None = None,
    epochs_before: Mapping[str, float] | None = None,
    shares_of: str = TOKENS,
) -> DataPlan:
    """The rows of a run of `stages` (name, weights, steps).

    Weights become row weights by what a row of each source holds on its average, so shares of tokens, or bytes, are exact.

    Args:
        batch_rows: rows in a step's global batch.
        max_epochs: how often at most a source may be read, what its trunk read included; None: as often as it takes.
        start_rows: rows of each source that the trunk had read: this run continues past them.
        epochs_before: how often each source was read before this run; None: as often as `start_rows` says.
        shares_of: what weights are shares of, "tokens" or "bytes".

    Raises:
        ConfigurationError: an unknown or empty source, a stage without steps, or a source read more than `max_epochs`.
    """
    if shares_of not in UNITS:
        raise ConfigurationError(f"SHARES_OF is {shares_of!r}; it is {' or '.join(map(repr, UNITS))}.")
    planned = []
    for name, weights, steps in stages:
        if steps < 1:
            raise ConfigurationError(f"stage {name!r} has {steps} steps; it needs at least one.")
        for source in named(weights):
            if source not in sources:
                raise ConfigurationError(f"stage {name!r} reads from {source!r}; the sources are {', '.join(sources)}.")
            if not sources[source].rows:
                raise ConfigurationError(f"source {source!r} (stage {name!r}) is empty: it has no training rows.")
        planned.append(_planned_stage(name, weights, steps, sources, shares_of))
    used = {name: info for name, info in sources.items() if any(name in stage.parts for stage in planned)}
    start = {name: rows for name, rows in (start_rows or {}).items() if name in used and rows}
    before = {name: rows / used[name].rows for name, rows in start.items()} if epochs_before is None else epochs_before
    before = {name: epochs for name, epochs in before.items() if name in used and epochs}
    plan = DataPlan(used, tuple(planned), batch_rows, seed, start, before)
    if max_epochs is not None and not max_epochs > 0:
        raise ConfigurationError(f"MAX_EPOCHS = {max_epochs!r}; it is above 0, or None.")
    if max_epochs is not None:
        _check_epochs(plan, max_epochs)
    return plan


def _planned_stage(
    name: str, weights: Weights, steps: int, sources: Mapping[str, SourceInfo], shares_of: str
) -> PlannedStage:
    size = {source: getattr(sources[source], shares_of) for source in named(weights)}

    def resolved(weights: Mapping[str, float] | ByTemperature) -> dict[str, float]:
        return weights.of_sizes(size) if isinstance(weights, ByTemperature) else dict(weights)

    def of_rows(weights: Mapping[str, float]) -> dict[str, Fraction]:
        return {
            source: Fraction(str(weight)) * sources[source].rows / size[source]
            for source, weight in weights.items()
            if weight
        }

    if not isinstance(weights, Ramp):
        found = resolved(weights)
        per_row = of_rows(found)
        return PlannedStage(name, steps, found, dict(zip(per_row, integer_parts(per_row), strict=True)))
    ends, mean = [], dict.fromkeys(size, 0.0)
    for end in (resolved(weights.before), resolved(weights.after)):
        per_row = of_rows(end)
        parts = dict(zip(per_row, parts_of(per_row, _RAMP_WHOLE), strict=True))
        ends.append({source: parts.get(source, 0) for source in size})
        mean = {source: mean[source] + end.get(source, 0) / sum(end.values()) / 2 for source in mean}
    return PlannedStage(name, steps, mean, ends[1], ends[0])


def _check_epochs(plan: DataPlan, max_epochs: float) -> None:
    for name, epochs in plan.epochs(plan.steps).items():
        if epochs <= max_epochs:
            continue
        info, carried = plan.sources[name], plan.epochs_before.get(name, 0)
        read = plan.exposures(plan.steps)
        shares = [
            f"{s.weights[name] / sum(s.weights.values()):.3g} of stage {s.name!r}"
            for s in plan.stages
            if name in s.parts
        ]
        left = max(0.0, max_epochs - carried) * info.tokens
        raise ConfigurationError(
            f"source {name!r} holds {count(info.tokens)} tokens; this plan reads "
            f"{count(read[name] / info.rows * info.tokens)} of it ({epochs:.3g} epochs in all) and MAX_EPOCHS is {max_epochs:g}.\n"
            f"  It has {', '.join(shares)}"
            + (f"; {carried:.3g} epochs of it were read before this run" if carried else "")
            + ".\n  "
            + (
                f"Lower TRAIN_TOKENS, or its weights, until at most {count(left)} tokens of it are read"
                if left
                else "None of it is left: leave it out"
            )
            + f", or set MAX_EPOCHS = {int(np.ceil(epochs))}."
        )
