"""Which charts a run gets, and which a comparison."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from cptjax.evaluation.table import UNITS
from cptjax.reporting.comparison import OWN_SAMPLES, Comparison, Estimate, Split, common_metric, finite, mean_change
from cptjax.reporting.estimate_plots import Bar, bars, points
from cptjax.reporting.exams_in_training import exam_curves
from cptjax.reporting.palette import BASE, Style, style, styles
from cptjax.reporting.plots import Chart, Series, Span, lines, means, shares, stretch_length, trace
from cptjax.reporting.run_content import Domain, RunContent
from cptjax.reporting.summary import same_held_out_text
from cptjax.reporting.wording import listed, plural, rate

TOKENS, STEPS = "tokens read in this run", "steps of this run"
_MOST_BARS = 12


def source_styles(runs: Sequence[RunContent]) -> dict[str, Style]:
    """A look for every domain and source, the same in all runs of a page."""
    return styles(name for run in runs for name in (*(domain.name for domain in run.domains), *_mixed(run)))


def run_charts(run: RunContent, name: str, looks: Mapping[str, Style]) -> list[Chart]:
    """Held-out loss by domain, training loss, learning rate, mixture, gradient norm and speed, each where it is known.

    Args:
        name: of the run, unique in the page; its charts' names begin with it.
        looks: of its domains and sources.
    """
    x, scale = _scale(run)
    end = run.last_step * scale
    switches = [begin * scale for begin in _stage_begins(run)]
    noted = "Dotted lines: a new stage begins." if switches else ""
    found = []
    if run.domains:
        series = [_domain_series(domain, domain.name, looks[domain.name], scale) for domain in run.domains]
        title = "Held-out loss by domain, nats per token"
        found.append(lines(f"{name}-domains", title, series, x, switches=switches, x_max=end, note=noted))
    found += exam_curves(run, name, x, scale)
    steps = [line["step"] * scale for line in run.training]
    if steps:
        loss = Series("training loss", steps, run.values("loss"), style(0))
        found.append(trace(f"{name}-loss", "Training loss, nats per token", loss, x, switches=switches))
        rates = Series("learning rate", steps, run.values("learning_rate"), style(0), markers=False)
        found.append(lines(f"{name}-rate", "Learning rate", [rates], x, switches=switches, zero=True, format_y=rate))
    if spans := _spans(run, scale):
        read = run.last_step * scale
        unread = read < spans[-1].end
        title = "Mixture: shares of tokens by stage"
        note = "Stages: " + ", ".join(span.name for span in spans) + "."
        note += " Black line: how far the run has got." if unread else ""
        found.append(shares(f"{name}-mixture", title, spans, looks, x, read=read if unread else None, note=note))
    for prefix, title in (
        ("loss/", "Training loss by source, nats per token"),
        ("gradient_norm/", "Gradient norm by group of weights, before clipping"),
    ):
        if (parts := _by_part(run, prefix, steps, looks)) and len(parts) > 1:
            slug = prefix.strip("/").replace("_", "-")
            note = f"Means of {plural(stretch_length(len(steps)), 'step')}." if stretch_length(len(steps)) > 1 else ""
            found.append(lines(f"{name}-{slug}-parts", title, parts, x, switches=switches, note=note))
    for key, title in (
        ("gradient_norm", "Gradient norm, before clipping"),
        ("router_loss", "Load-balancing loss of the routers, without its coefficient"),
        ("z_loss", "Squared log of the softmax's denominator, without its coefficient"),
        ("mfu", "MFU, share of the devices' peak by counted FLOPs"),
        ("tokens_per_second", "Speed, tokens per second"),
    ):
        values = run.values(key)
        if any(math.isfinite(value) for value in values):
            found.append(
                trace(
                    f"{name}-{key.replace('_', '-')}",
                    title,
                    Series(title, steps, values, style(0)),
                    x,
                    zero=key not in ("gradient_norm", "router_loss"),
                )
            )
    return found


def _by_part(run: RunContent, prefix: str, steps: Sequence[float], looks: Mapping[str, Style]) -> list[Series]:
    """A line for each metric whose name begins so, of the means of stretches of steps; a source looks as elsewhere."""
    names = sorted({key for line in run.training for key in line if key.startswith(prefix)})
    parts = []
    for number, key in enumerate(names):
        part = key.removeprefix(prefix)
        at, mean = means(steps, run.values(key))
        there = np.isfinite(mean)  # a source that a stage does not read has no loss in it: no gap to speak of
        parts.append(Series(part, at[there], mean[there], looks.get(part, style(number)), markers=False))
    return parts


def overlaid_charts(runs: Sequence[RunContent], looks: Mapping[str, Style]) -> list[Chart]:
    """A chart for each domain with the curves of all runs that measured it, and one of their learning rates."""
    scales = [_scale(run) for run in runs]
    x = TOKENS if all(label == TOKENS for label, _ in scales) else STEPS
    factors = [scale if x == TOKENS else 1 for _, scale in scales]
    found = []
    for number, name in enumerate(dict.fromkeys(domain.name for run in runs for domain in run.domains)):
        series = [
            _domain_series(domain, run.label, looks[run.label], factor)
            for run, factor in zip(runs, factors, strict=True)
            for domain in run.domains
            if domain.name == name
        ]
        same = same_held_out_text(runs, name)
        note = {
            True: "",
            False: "The runs measured different held-out text: their curves are not comparable.",
            None: "Whether the runs measured the same held-out text is not recorded.",
        }[same if len(series) > 1 else True]
        found.append(lines(f"all-{number}", f"{name}: held-out loss, nats per token", series, x, note=note))
    series = [
        Series(
            run.label,
            [line["step"] * factor for line in run.training],
            run.values("learning_rate"),
            looks[run.label],
            False,
        )
        for run, factor in zip(runs, factors, strict=True)
        if run.training
    ]
    if series:
        found.append(lines("all-rate", "Learning rates", series, x, zero=True, format_y=rate))
    return found


def effect_charts(comparison: Comparison, split: Split, looks: Mapping[str, Style]) -> list[Chart]:
    """Gain on the targets against forgetting, a chart for each domain that may be forgotten."""
    if not split.targets:
        return []
    targets = listed(split.targets)
    base = Bar(comparison.base or "each run's own start", 0.0, BASE)
    metric = common_metric(comparison, [*split.targets, *split.forgotten])
    found = []
    for number, domain in enumerate(split.forgotten):
        pairs = []
        for label in comparison.compared:
            gain = mean_change(comparison, split.targets, metric, label)
            lost = mean_change(comparison, [domain], metric, label)
            if finite(gain) and finite(lost):
                gain = Estimate(-gain.value, _negative(gain.high), _negative(gain.low))
                pairs.append((_bar(label, lost, looks), _bar(label, gain, looks)))
        if pairs:
            note = "Up and to the left is better." + (
                " The gain is the mean over the targets." if len(split.targets) > 1 else ""
            )
            found.append(
                points(
                    f"effect-{number}",
                    f"Gain on {targets} against forgetting of {domain}",
                    pairs,
                    f"rise of the forgotten domain's loss, {UNITS[metric]}",
                    f"fall of the target's loss, {UNITS[metric]}",
                    origin=base,
                    note=note,
                )
            )
    return found


def own_sample_charts(comparison: Comparison, looks: Mapping[str, Style]) -> list[Chart]:
    """What became of text that the base wrote itself: loss of each checkpoint on it, and KL from the base."""
    found = []
    titles = {"loss": "Loss on {}'s own samples", "kl": "KL({0} ‖ checkpoint) on {0}'s own samples"}
    for number, row in enumerate(row for row in comparison.rows if row.suite == OWN_SAMPLES and row.metric in titles):
        values = [_bar(label, row.values[label], looks) for label in comparison.labels if label in row.values]
        note = "" if len(values) <= _MOST_BARS else f"The first {_MOST_BARS} of {len(values)} checkpoints."
        title = titles[row.metric].format("the " + row.subset if row.subset == "base" else row.subset)
        found.append(bars(f"own-{number}", title, values[:_MOST_BARS], "nats per token", note=note))
    return found


def _domain_series(domain: Domain, label: str, look: Style, scale: float) -> Series:
    return Series(label, [step * scale for step in domain.steps], domain.loss, look)


def _scale(run: RunContent) -> tuple[str, float]:
    """What the x axis counts, and how much of it a step is."""
    if run.batch_tokens is not None:
        return TOKENS, run.batch_tokens
    return STEPS, 1


def _stage_begins(run: RunContent) -> list[int]:
    """The steps at which a stage after the first begins."""
    ends = list(itertools.accumulate(stage.steps for stage in run.planned))
    return ends[:-1]


def _spans(run: RunContent, scale: float) -> list[Span]:
    begins = [0, *itertools.accumulate(stage.steps for stage in run.planned)]
    return [
        Span(stage.name, begin * scale, end * scale, _as_shares(stage.weights))
        for stage, begin, end in zip(run.planned, begins, begins[1:], strict=False)
        if sum(stage.weights.values()) > 0
    ]


def _as_shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _mixed(run: RunContent) -> list[str]:
    return [name for stage in run.planned for name in stage.weights]


def _bar(label: str, estimate: Estimate, looks: Mapping[str, Style]) -> Bar:
    return Bar(label, estimate.value, looks[label], estimate.low, estimate.high)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
