"""The rows of evaluation.jsonl: each number with its interval, and each checkpoint's changes from the base."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.evaluation.bootstrap import Interval, paired_interval, ratio_interval
from cptjax.evaluation.documents import DocumentLosses, in_common
from cptjax.evaluation.exams.answers import CONTAMINATED
from cptjax.evaluation.exams.contamination import clean_questions
from cptjax.evaluation.exams.rows import exam_rows
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.own_samples import SampleLosses
from cptjax.evaluation.result_row import result_row
from cptjax.evaluation.table import CHANGE, EXAM_CLEAN

# What varies in the intervals (PROTOCOL.md 10): not the seed, not the order of the data.
DOCUMENTS = "documents (this checkpoint only)"
SAMPLES = "own samples (this checkpoint only)"
BITS = 1 / math.log(2)


def _itself(ratio: Any) -> Any:
    return ratio


# Of a source: what its nats are multiplied by, what they are divided by, and which function of that ratio it is.
METRICS: dict[str, tuple[float, str, Callable[[Any], Any]]] = {
    "loss": (1.0, "tokens", _itself),
    "bits_per_byte": (BITS, "bytes", _itself),
    "perplexity": (1.0, "tokens", np.exp),
}


def result_rows(
    measurements: Sequence[Measurement],
    base: Measurement,
    seed: int,
    suite: str = "loss",
    exams: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """A row for each metric of each source, of the own samples and of each exam, checkpoint by checkpoint.

    Args:
        seed: of the bootstrap; the same for all, so that the same documents are drawn for each.
        suite: what the sources' rows are called.
        exams: the sha256 of each exam.
    """
    rows = []
    clean = {
        name: clean_questions(
            [found.exams[name].columns for found in measurements if name in found.exams], CONTAMINATED
        )
        for name in base.exams
    }
    for found in measurements:
        for name, losses in found.sources.items():
            others = None if found is base else base.sources.get(name)
            rows += _source_rows(found, suite, name, losses, others, found.same_tokens(base), seed)
        if found.own_samples is not None:
            rows += _sample_rows(found, found.own_samples, None if found is base else base.own_samples, seed)
        for name, answers in found.exams.items():
            others = None if found is base else base.exams[name]
            how = (found.same_tokens(base), seed, (exams or {}).get(name))
            rows += exam_rows(found, name, answers, others, *how)
            if (kept := clean[name]) is not None:  # the same questions for all
                rows += exam_rows(found, name, answers.take(kept), others and others.take(kept), *how, EXAM_CLEAN)
    return rows


def _source_rows(
    found: Measurement,
    suite: str,
    source: str,
    losses: DocumentLosses,
    base: DocumentLosses | None,
    same_tokens: bool,
    seed: int,
) -> list[dict[str, Any]]:
    rows = []
    for metric, (unit, per, of) in METRICS.items():
        nats, denominators = losses.nats * unit, getattr(losses, per)
        value = float(of(nats.sum() / denominators.sum()))
        interval = _through(of, ratio_interval(nats, denominators, seed))
        rows.append(result_row(found, suite, source, metric, value, interval, DOCUMENTS, len(losses)))
    if base is None:
        return rows
    mine, theirs = in_common(losses, base)
    if not len(mine):
        return rows
    for metric, (unit, per, of) in METRICS.items():
        if same_tokens or per == "bytes":
            four = (mine.nats * unit, getattr(mine, per), theirs.nats * unit, getattr(theirs, per))
            rows.append(_change(found, suite, source, metric, four, DOCUMENTS, seed, of))
    return rows


def _sample_rows(
    found: Measurement, losses: SampleLosses, base: SampleLosses | None, seed: int
) -> list[dict[str, Any]]:
    rows = []
    for metric, values in (("loss", losses.nats), ("kl", losses.kl)):
        interval = ratio_interval(values, losses.tokens, seed)
        value = float(values.sum() / losses.tokens.sum())
        rows.append(result_row(found, "own_samples", "base", metric, value, interval, SAMPLES, len(values)))
    if base is not None:  # the divergence is from the base already
        four = (losses.nats, losses.tokens, base.nats, base.tokens)
        rows.append(_change(found, "own_samples", "base", "loss", four, SAMPLES, seed))
    return rows


def _change(
    found: Measurement,
    suite: str,
    subset: str,
    metric: str,
    four: tuple,
    varies: str,
    seed: int,
    of: Callable[[Any], Any] = _itself,
) -> dict[str, Any]:
    """The row of a paired difference of `of` two ratios: numerators and denominators of the checkpoint, then of the base."""
    nats, per, base_nats, base_per = four
    value = float(of(nats.sum() / per.sum())) - float(of(base_nats.sum() / base_per.sum()))
    interval = paired_interval(*four, seed, of)
    return result_row(found, suite, subset, metric + CHANGE, value, interval, varies, len(nats))


def _through(of: Callable[[Any], Any], interval: Interval) -> Interval:
    """The interval of `of`, which rises, of what has this one."""
    low, high = interval
    return interval if low is None else (float(of(low)), float(of(high)))
