"""Rows of held-out documents in other ways than source by source: in groups by a field of their records, and in windows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.data.rows import RowReader
from cptjax.errors import ConfigurationError
from cptjax.evaluation.documents import DocumentLosses
from cptjax.evaluation.measure import Rows
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.results import result_rows
from cptjax.evaluation.table import BY_FIELD, IN_WINDOWS

MOST_GROUPS = 100
ABSENT = "(none)"  # the group of documents without the field

Values = Mapping[str, Sequence[str]]  # by source the group of each held-out document


def field_values(source: str, reader: RowReader, field: str) -> list[str]:
    """What each held-out document's record says in `field`, in the order of `DocumentLosses`.

    Raises:
        ConfigurationError: no document has the field, or it has more than `MOST_GROUPS` values.
    """
    records = [document["metadata"] for document in reader.documents(range(reader.manifest.documents))]
    values = [ABSENT if record.get(field) is None else str(record[field]) for record in records]
    found = set(values)
    if found == {ABSENT}:
        there = sorted({name for record in records for name, value in record.items() if value is not None})
        raise ConfigurationError(
            f"GROUP_BY: no held-out document of {source!r} has the field {field!r}; "
            + (f"there is {', '.join(there)}." if there else "its records have none but the text and the id.")
        )
    if len(found) > MOST_GROUPS:
        raise ConfigurationError(
            f"GROUP_BY: the field {field!r} of {source!r} has {len(found):,} values in its held-out documents; "
            f"at most {MOST_GROUPS} groups are told apart."
        )
    return values


def group_values(rows: Mapping[str, Rows], fields: Mapping[str, str]) -> dict[str, Values]:
    """By tokenizer and source the group of each held-out document.

    Args:
        rows: by tokenizer (its fingerprint) the rows of every source; fields: source -> field.

    Raises:
        ConfigurationError: a source that is none of the evaluation's; as `field_values`.
    """
    for source in fields:
        if any(source not in of for of in rows.values()):
            there = ", ".join(next(iter(rows.values())))
            raise ConfigurationError(f"GROUP_BY names the source {source!r}; SOURCES has {there or 'none'}.")
    return {
        tokenizer: {
            source: field_values(source, RowReader(of[source].validation), field) for source, field in fields.items()
        }
        for tokenizer, of in rows.items()
    }


def group_rows(
    measured: Sequence[Measurement],
    base: Measurement,
    values: Mapping[str, Values],
    fields: Mapping[str, str],
    seed: int,
) -> list[dict[str, Any]]:
    """The rows of evaluation.jsonl for each group of documents, suite "loss_by_field"."""
    grouped = {found.label: _grouped(found, fields, values[found.tokenizer]) for found in measured}
    return result_rows([grouped[found.label] for found in measured], grouped[base.label], seed, BY_FIELD)


def window_rows(measured: Sequence[Measurement], base: Measurement, seed: int) -> list[dict[str, Any]]:
    """The rows of evaluation.jsonl for documents read in overlapping windows, suite "loss_in_windows"."""
    read = {found.label: with_sources(found, found.in_windows) for found in measured}
    return result_rows([read[found.label] for found in measured], read[base.label], seed, IN_WINDOWS)


def with_sources(found: Measurement, sources: Mapping[str, DocumentLosses]) -> Measurement:
    """The measurement of the same checkpoint on other documents, and nothing else of it."""
    return dataclasses.replace(found, sources=dict(sources), own_samples=None, samples=None, exams={}, in_windows={})


def _grouped(found: Measurement, fields: Mapping[str, str], values: Values) -> Measurement:
    groups = {}
    for source, field in fields.items():
        of = np.array(values[source])
        for value in sorted(set(values[source])):
            groups[group_name(source, field, value)] = found.sources[source].take(np.flatnonzero(of == value))
    return with_sources(found, groups)


def group_name(source: str, field: str, value: str) -> str:
    """What a group is called among the subsets of an evaluation."""
    return f"{source}[{field}={value}]"
