"""What runs saved over others at equal loss, as rows of evaluation.jsonl: curves over annealed runs, with intervals.

CURVES names them: {"from scratch": ["s1", "s2", "s3"], "continued": ["c1", "c2"]}, labels of CHECKPOINTS, the first curve the one
that others are held against. A list within a list is seeds of one run, averaged. Costs are the lineage's, counted.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.errors import ConfigurationError
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.curves import Point, efficiency_gain, flops_saved, specialized_efficiency, transferred_tokens
from cptjax.evaluation.drawn_losses import DOCUMENTS, Losses, drawn_interval, losses_of
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.result_row import result_row
from cptjax.evaluation.table import CURVE_UNITS, CURVES


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a checkpoint cost: tokens and FLOPs since the source, and FLOPs with the source's own (None: not known)."""

    tokens: float
    flops: float
    with_source: float | None


@dataclasses.dataclass(frozen=True)
class Stop:
    """One point of a curve: the checkpoints (seeds of one run) whose mean it is, and what they cost on average."""

    labels: tuple[str, ...]
    costs: Costs


@dataclasses.dataclass(frozen=True)
class Asked:
    """The curves of an evaluation, checked: by name their points."""

    curves: Mapping[str, tuple[Stop, ...]]
    domain_share: float | None
    matched_on: str | None = None  # the source at whose equal loss is read what was forgotten of the others

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the rows, as plain data."""
        points = {
            name: [[list(stop.labels), *dataclasses.astuple(stop.costs)] for stop in curve]
            for name, curve in self.curves.items()
        }
        matched = {} if self.matched_on is None else {"matched_on": self.matched_on}
        return {"points": points, "domain_share": self.domain_share, **matched}

    @property
    def labels(self) -> list[str]:
        """Every checkpoint on a curve, once."""
        stops = (stop for curve in self.curves.values() for stop in curve)
        return list(dict.fromkeys(label for stop in stops for label in stop.labels))


def ask_curves(
    curves: Mapping[str, Sequence[Any]] | None,
    compared: Sequence[Compared],
    base: Compared,
    source_flops: float | None,
    domain_share: float | None,
    matched_on: str | None = None,
    sources: Collection[str] = (),
) -> Asked | None:
    """Checks CURVES against what their checkpoints' lineages say; None where none is asked for.

    Args:
        base: what continued runs go on from: a run of ours, whose FLOPs are then counted, or a Hugging Face folder, whose
            FLOPs are `source_flops` or not known.
        domain_share: p, the domain's share of the general text, for the specialised-to-general ratio's null.
        matched_on: of `sources` the one at whose equal loss forgetting of the others is read (evaluation/matched_rows.py).

    Raises:
        ConfigurationError: a curve that is none, a label that is not compared or has no lineage, a point that is not annealed,
            a MATCHED_ON without curves or without another source.
    """
    if matched_on is not None and (not curves or matched_on not in sources or len(sources) < 2):
        raise ConfigurationError(
            f"MATCHED_ON = {matched_on!r}; it is a source ({', '.join(sources) or 'there is none'}) at whose equal loss the curves"
            " of CURVES are read on the other sources: name curves, and two sources at least."
        )
    if not curves:
        return None
    if not isinstance(curves, Mapping) or len(curves) < 2:
        raise ConfigurationError(
            f"CURVES = {curves!r}; it is {{'one': ['label', ...], 'another': ['label', ...]}}: two curves at least, of which "
            "the first is what the others are held against."
        )
    for name, value in (("SOURCE_FLOPS", source_flops), ("DOMAIN_SHARE", domain_share)):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        if value is not None and not number:
            raise ConfigurationError(f"{name} = {value!r}; it is a number above 0, or None.")
    if domain_share is not None and domain_share > 1:
        raise ConfigurationError(f"DOMAIN_SHARE = {domain_share!r}; it is a share of the general text, at most 1.")
    known = {one.label: one for one in compared}
    found = {}
    for name, points in curves.items():
        if not isinstance(points, list | tuple) or not points:
            raise ConfigurationError(f"CURVES[{name!r}] = {points!r}; it is a list of labels of CHECKPOINTS.")
        groups = [tuple(each) if isinstance(each, list | tuple) else (each,) for each in points]
        found[name] = tuple(_stop(name, group, known, base, source_flops) for group in groups)
        if any(len({getattr(stop.costs, cost) for stop in found[name]}) < len(groups) for cost in ("tokens", "flops")):
            raise ConfigurationError(
                f"CURVES[{name!r}] has two points of the same cost.\n  Seeds of one run are written as a list within the list."
            )
    return Asked(found, domain_share, matched_on)


def _stop(
    name: str, labels: tuple[Any, ...], known: Mapping[str, Compared], base: Compared, source_flops: float | None
) -> Stop:
    costs = []
    for label in labels:
        if label not in known:
            raise ConfigurationError(
                f"CURVES[{name!r}] names {label!r}, which is not among the checkpoints: {', '.join(map(repr, known))}."
            )
        costs.append(costs_of(known[label], base, source_flops))
    whole = [each.with_source for each in costs]
    mean = Costs(
        float(np.mean([each.tokens for each in costs])),
        float(np.mean([each.flops for each in costs])),
        None if None in whole else float(np.mean(whole)),
    )
    return Stop(tuple(labels), mean)


def costs_of(one: Compared, base: Compared, source_flops: float | None) -> Costs:
    """What a checkpoint cost by its lineage (PROTOCOL.md 2): since the base, where that is its ancestor, and in all.

    Raises:
        ConfigurationError: a Hugging Face folder, which has no lineage; a checkpoint that is not annealed.
    """
    if one.opened.store is None:
        raise ConfigurationError(
            f"CURVES: {one.label!r} is a Hugging Face folder, which does not tell what it cost. Only runs of ours are points."
        )
    lineage = one.opened.lineage
    if not lineage.annealed:
        raise ConfigurationError(
            f"CURVES: {one.label!r} is not annealed: its learning rate ended at {lineage.final_learning_rate():g}, its peak is "
            f"{lineage.peak_learning_rate():g}, and its loss would have fallen further without more data (PROTOCOL.md 3).\n"
            "  Branch off a cooldown of its own (docs/training.md) and name that: its tokens are then charged to it."
        )
    if lineage.origin.kind == "hugging_face":
        return Costs(lineage.tokens, lineage.flops, None if source_flops is None else lineage.flops + source_flops)
    before = _ancestors_of(one, base)
    tokens, flops = (
        sum(getattr(stage, what) for run in lineage.runs[:before] for stage in run.stages)
        for what in ("tokens", "flops")
    )
    return Costs(lineage.tokens - tokens, lineage.flops - flops, lineage.flops)


def _ancestors_of(one: Compared, base: Compared) -> int:
    """How many runs of the lineage are the base's; 0 where the base is no ancestor of it (or is itself)."""
    if one is base or base.opened.store is None:
        return 0
    theirs, mine = base.opened.lineage, one.opened.lineage
    shared = [run.run for run in mine.runs[: len(theirs.runs)]] == [run.run for run in theirs.runs]
    return len(theirs.runs) if shared and theirs.origin == mine.origin and len(mine.runs) > len(theirs.runs) else 0


def curve_rows(
    asked: Asked | None, measurements: Sequence[Measurement], seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of every curve against the first, domain by domain; and a sentence for each number that there is none of.

    Intervals: documents are drawn, and all curves read off anew; none where a draw leaves the curve.
    """
    rows: list[dict[str, Any]] = []
    said: list[str] = []
    if asked is None:
        return rows, said
    measured = {found.label: found for found in measurements}
    on_curves = [measured[label] for label in asked.labels]
    baseline, *others = asked.curves
    for domain in on_curves[0].sources:
        losses, drawn, n = losses_of(on_curves, domain, seed)
        if not all(map(math.isfinite, losses.values())):
            said.append(f"{domain}: nothing is read off curves with a loss that is not finite")
            continue
        for other in others:
            for point, metric, read in _read_off(asked, baseline, other):
                value = read(losses)
                if value is None:
                    said.append(
                        f"{domain}, {other} against {baseline}: no {metric}, for a loss lies outside the other curve"
                    )
                    continue
                interval = drawn_interval([read(draw) for draw in drawn])
                at = measured[point.labels[-1]]
                found = dataclasses.replace(at, label=" + ".join(point.labels))
                subset = f"{domain}: {other} against {baseline}"
                rows.append(result_row(found, CURVES, subset, metric, value, interval, DOCUMENTS, n))
    if any(stop.costs.with_source is None for curve in asked.curves.values() for stop in curve):
        said.append("the source model's own FLOPs are not known (SOURCE_FLOPS): what was saved is marginal alone")
    return rows, list(dict.fromkeys(said))


def _read_off(asked: Asked, baseline: str, other: str) -> Iterator[tuple[Stop, str, Callable[[Losses], float | None]]]:
    """(the point it is of, the metric, what reads it off the losses) of everything that is said of a curve."""

    def points(name: str, cost: str, losses: Losses) -> list[Point]:
        return [
            Point(getattr(stop.costs, cost), sum(losses[label] for label in stop.labels) / len(stop.labels))
            for stop in asked.curves[name]
        ]

    def saved(place: int, cost: str) -> Callable[[Losses], float | None]:
        def read(losses: Losses) -> float | None:
            found = flops_saved(points(baseline, cost, losses), points(other, cost, losses)[place], 0.0)
            return None if found is None else found.marginal

        return read

    def transferred(place: int) -> Callable[[Losses], float | None]:
        return lambda losses: transferred_tokens(
            points(baseline, "tokens", losses), points(other, "tokens", losses)[place]
        )

    mine = asked.curves[other]
    whole = all(stop.costs.with_source is not None for name in (baseline, other) for stop in asked.curves[name])
    for place, stop in enumerate(mine):
        yield stop, "transferred_tokens", transferred(place)
        yield stop, "flops_saved", saved(place, "flops")
        if whole:
            yield stop, "flops_saved_with_source", saved(place, "with_source")
    last = max(mine, key=lambda stop: stop.costs.tokens)
    yield (
        last,
        "efficiency_gain",
        lambda losses: efficiency_gain(points(baseline, "tokens", losses), points(other, "tokens", losses)),
    )
    if asked.domain_share is not None:
        for metric, name in (
            ("sger_at_best", "at_best"),
            ("sger_to_general_best", "to_general_best"),
            ("sger_null", "null"),
        ):
            yield (
                last,
                metric,
                lambda losses, name=name: getattr(
                    specialized_efficiency(
                        points(baseline, "flops", losses), points(other, "flops", losses), asked.domain_share
                    ),
                    name,
                ),
            )


def curves_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows of the curves as lines for a terminal."""
    lines, named = [], None
    for row in rows:
        if row["suite"] != CURVES:
            continue
        if row["subset"] != named:
            lines.append(f"{row['subset']}:")
            named = row["subset"]
        tokens = row["metric"] == "transferred_tokens"
        shown = f"{row['value']:,.0f}" if tokens else f"{row['value']:.3f}"
        lines.append(f"  {row['checkpoint']:20} {CURVE_UNITS[row['metric']]}: {shown}")
    return lines
