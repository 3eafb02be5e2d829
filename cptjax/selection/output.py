"""What a selection writes: a line for each unit, and the kept ones as a source like any other."""

import gzip
import json
import math

import numpy as np
from etils import epath

from cptjax.data.sources import SELECTED, SELECTION
from cptjax.data.units import Units
from cptjax.files import whole_file
from cptjax.selection.selected import Selection

MANIFEST, CORPUS, RECORD = "manifest.jsonl", SELECTED, SELECTION


def write_manifest(path: epath.Path, units: Units, selection: Selection) -> None:
    """`id`, `kept`, `stage`, `reason`, `cluster`, `score` of each unit, in the corpus's order; what does not apply is null."""
    with whole_file(path) as stream:
        for unit in range(len(units)):
            stream.write((json.dumps(manifest_line(units, selection, unit), ensure_ascii=False) + "\n").encode())


def manifest_line(units: Units, selection: Selection, unit: int) -> dict[str, object]:
    """The line of one unit."""
    reason = None if selection.kept[unit] else selection.reasons[selection.reason[unit]]
    instead, cluster, score = (getattr(selection, name)[unit].item() for name in ("instead", "cluster", "score"))
    text = None
    if reason is not None:
        text = reason.text.replace("{}", repr(units.id(instead))) if instead >= 0 else reason.text
    return {
        "id": units.id(unit),
        "kept": bool(selection.kept[unit]),
        "stage": None if reason is None else reason.stage,
        "reason": text,
        "cluster": None if cluster < 0 else cluster,
        "score": None if math.isnan(score) else score,
    }


def write_selected(path: epath.Path, units: Units, kept: np.ndarray) -> None:
    """The kept units as gzipped lines, the same bytes whenever they are written: `id`, the other fields of the record, `text`.

    Of a passage also its `document`, and its `first_token` and `last_token` there (the one behind it).
    """
    with whole_file(path) as stream, gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed:
        for document, members in units.with_documents():
            for unit in members:
                if kept[unit]:
                    record = {"id": units.id(unit), **document.metadata}
                    if units.passages:
                        place = (document.name, int(units.first[unit]), int(units.last[unit]))
                        record |= dict(zip(("document", "first_token", "last_token"), place, strict=True))
                    record["text"] = document.text[units.begin[unit] : units.end[unit]]
                    packed.write((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8"))
