"""Forgetting at matched loss as rows of evaluation.jsonl: at the loss of each point of two curves that lies on both of them.

CURVES names the curves, MATCHED_ON the source whose loss is matched; every other source is one that may be forgotten. Forgetting is
the loss there less the base's, in nats per token, or bits per byte where tokenizers differ.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cptjax.evaluation.drawn_losses import DOCUMENTS, Losses, drawn_interval, losses_of
from cptjax.evaluation.matched import Matched, TwoLosses, at_equal_target
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.result_row import result_row
from cptjax.evaluation.savings import Asked, Stop
from cptjax.evaluation.table import CURVES


def matched_rows(
    asked: Asked | None, measurements: Sequence[Measurement], base: Measurement, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of every curve against the first, old domain by old domain; and a sentence for what there is no number of.

    Intervals: documents of the target and of the old domain are drawn apart, and both curves read anew under each draw; none
    where a draw leaves a curve. They know nothing of seeds.

    Args:
        base: what forgetting is counted from.
    """
    if asked is None or asked.matched_on is None:
        return [], []
    measured = {found.label: found for found in measurements}
    on = [measured[label] for label in dict.fromkeys([*asked.labels, base.label])]
    rows: list[dict[str, Any]] = []
    said: list[str] = []
    target, drawn_target, _ = losses_of(on, asked.matched_on, seed)
    for old in (name for name in on[0].sources if name != asked.matched_on):
        known, drawn_old, n = losses_of(on, old, seed + 1)  # another seed: the same would draw both sources alike
        if not all(map(math.isfinite, [*target.values(), *known.values()])):
            said.append(
                f"{old} at equal loss on {asked.matched_on}: nothing is read off curves with a loss that is not finite"
            )
            continue
        for (baseline, other), points in _pairs(asked):
            subset = f"{old} at equal loss on {asked.matched_on}: {other} against {baseline}"
            outside = []
            for stop in points:
                draws = list(zip(drawn_target, drawn_old, strict=False)) if drawn_target and drawn_old else []
                found = _rows_at(asked, (baseline, other), stop, base.label, (target, known), draws)
                if not found:
                    outside.append(" + ".join(stop.labels))
                at = dataclasses.replace(measured[stop.labels[-1]], label=" + ".join(stop.labels))
                rows += [result_row(at, CURVES, subset, *each, DOCUMENTS, n) for each in found]
            if outside:
                said.append(f"{subset}: nothing at the loss of {', '.join(outside)}, which lies outside one of them")
    return rows, said


def _pairs(asked: Asked) -> Iterator[tuple[tuple[str, str], list[Stop]]]:
    """Each other curve with the first, and the points of both, a run that is on both once."""
    baseline, *others = asked.curves
    for other in others:
        points = [*asked.curves[baseline], *asked.curves[other]]
        yield (baseline, other), list({stop.labels: stop for stop in points}.values())


def _rows_at(
    asked: Asked,
    names: tuple[str, str],
    stop: Stop,
    base: str,
    losses: tuple[Losses, Losses],
    draws: Sequence[tuple[Losses, Losses]],
) -> list[tuple[str, float, tuple]]:
    """(metric, value, interval) of everything that is said at a point's target loss; nothing where it lies outside a curve."""

    def read(both: tuple[Losses, Losses]) -> Matched | None:
        target, old = both
        curves = [[_at(each, target, old) for each in asked.curves[name]] for name in names]
        return at_equal_target(*curves, _mean(stop, target))

    found = read(losses)
    if found is None:
        return []
    drawn = [read(both) for both in draws]
    metrics: Mapping[str, Callable[[Matched, Losses], float]] = {
        "matched_loss": lambda it, old: it.at,
        "forgetting_of_first": lambda it, old: it.first - old[base],
        "forgetting": lambda it, old: it.other - old[base],
        "forgetting_difference": lambda it, old: it.difference,
    }
    return [
        (
            metric,
            of(found, losses[1]),
            drawn_interval([None if it is None else of(it, old) for it, (_, old) in zip(drawn, draws, strict=True)]),
        )
        for metric, of in metrics.items()
    ]


def _at(stop: Stop, target: Losses, old: Losses) -> TwoLosses:
    return TwoLosses(stop.costs.flops, _mean(stop, target), _mean(stop, old))


def _mean(stop: Stop, losses: Losses) -> float:
    return sum(losses[label] for label in stop.labels) / len(stop.labels)
