"""The rows of evaluation.jsonl: each number with its interval, and each checkpoint's changes from the base."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.evaluation.bootstrap import paired_interval, ratio_interval
from cptjax.evaluation.documents import DocumentLosses, in_common
from cptjax.evaluation.exams.rows import exam_rows
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.own_samples import SampleLosses
from cptjax.evaluation.result_row import result_row
from cptjax.evaluation.table import CHANGE

# What varies in the intervals (PROTOCOL.md 10): not the seed, not the order of the data.
DOCUMENTS = "documents (this checkpoint only)"
SAMPLES = "own samples (this checkpoint only)"
BITS = 1 / math.log(2)


def result_rows(measurements: Sequence[Measurement], base: Measurement, seed: int) -> list[dict[str, Any]]:
    """A row for each metric of each source, of the own samples and of each exam, checkpoint by checkpoint.

    Args:
        seed: of the bootstrap; the same for all, so that the same documents are drawn for each.
    """
    rows = []
    for found in measurements:
        for name, losses in found.sources.items():
            others = None if found is base else base.sources[name]
            rows += _source_rows(found, name, losses, others, found.same_tokens(base), seed)
        if found.own_samples is not None:
            rows += _sample_rows(found, found.own_samples, None if found is base else base.own_samples, seed)
        for name, answers in found.exams.items():
            others = None if found is base else base.exams[name]
            rows += exam_rows(found, name, answers, others, found.same_tokens(base), seed)
    return rows


def _source_rows(
    found: Measurement, source: str, losses: DocumentLosses, base: DocumentLosses | None, same_tokens: bool, seed: int
) -> list[dict[str, Any]]:
    total, rows = losses.total, []
    for metric, value, per in (
        ("loss", total.loss, losses.tokens),
        ("bits_per_byte", total.bits_per_byte, losses.bytes),
    ):
        unit = BITS if metric == "bits_per_byte" else 1.0
        interval = ratio_interval(losses.nats * unit, per, seed)
        rows.append(result_row(found, "loss", source, metric, value, interval, DOCUMENTS, len(losses)))
    if base is None:
        return rows
    mine, theirs = in_common(losses, base)
    if not len(mine):
        return rows
    for metric in ("loss", "bits_per_byte") if same_tokens else ("bits_per_byte",):
        unit, per = (BITS, "bytes") if metric == "bits_per_byte" else (1.0, "tokens")
        four = (mine.nats * unit, getattr(mine, per), theirs.nats * unit, getattr(theirs, per))
        rows.append(_change(found, "loss", source, metric, four, DOCUMENTS, seed))
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
    found: Measurement, suite: str, subset: str, metric: str, four: tuple, varies: str, seed: int
) -> dict[str, Any]:
    """The row of a paired difference: numerators and denominators of the checkpoint, then of the base."""
    nats, per, base_nats, base_per = four
    value = float(nats.sum() / per.sum()) - float(base_nats.sum() / base_per.sum())
    return result_row(found, suite, subset, metric + CHANGE, value, paired_interval(*four, seed), varies, len(nats))


def as_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as evaluation.jsonl holds them. JSON has no nan and no infinity: they are strings, as in metrics.jsonl."""
    finite = [
        {name: str(x) if isinstance(x, float) and not math.isfinite(x) else x for name, x in row.items()}
        for row in rows
    ]
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in finite)
