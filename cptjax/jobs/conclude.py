"""A study's conclusion: the table of its runs, and what it says of the contrast that was declared before them."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.configuration import resolved_config
from cptjax.files import read_json
from cptjax.reporting.folder import RunFolder
from cptjax.reporting.table_text import as_latex
from cptjax.studies.arms import Contrast
from cptjax.studies.cost import VERDICT
from cptjax.studies.page import runs_table, study_page
from cptjax.studies.table import Run, by_point, on_source, read_run
from cptjax.studies.verdict import cost_of_seeds, judge, null_of
from cptjax.training.members import RATES

RUNS = "runs"
TABLES = "tables"


def conclude(
    points: Sequence[Mapping[str, Any]],
    rates: Mapping[str, str],
    contrast: Mapping[str, Any],
    output_dir: str,
    rules: Sequence[str] = (),
    smoke: bool = False,
    dry_run: bool = False,
) -> None:
    """Writes runs.jsonl, runs.csv and runs.tex, tables/<table>.jsonl (what `fit_law` reads), verdict.json and report.md.

    A step of a study (`studies/grid_steps.py` writes its settings); it trains nothing.

    Args:
        points: each run's folder, and what the grid calls it; rates: the folders of `find_rates`, by arm and size.
        contrast: the primary one, a `studies.arms.Contrast` as a dict.
        rules: sentences on what the study's runs are held to, which the report repeats (`studies.grid.Grid.rules`).
        smoke: a smoke run: there is no verdict.

    Raises:
        CptjaxError: a run is missing, not finished, or was measured on other documents than the others.
    """
    folder = RunFolder(output_dir)
    if dry_run:
        print(f"{len(points)} runs would be concluded from into {folder.path}")
        return
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})
    runs = [read_run(point) for point in points]
    plateaus = {point["arm"] for point in points if not point["tables"]}
    found = {name: read_json(epath.Path(path) / RATES) for name, path in rates.items()}

    folder.write(f"{RUNS}.jsonl", _json_lines([run.row for run in runs]))
    folder.write(f"{RUNS}.csv", _csv(runs))
    (folder.path / TABLES).mkdir(exist_ok=True)
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for run, point in zip(runs, points, strict=True):
        for source, table in point["tables"].items():
            tables.setdefault(table, []).append(on_source(run.row, source))
    for table, rows in tables.items():
        folder.write(f"{TABLES}/{table}.jsonl", _json_lines(rows))

    declared = Contrast(**contrast)
    verdict = judge(runs, declared, smoke)
    seeds = verdict.needed
    flops, seconds = (None, None) if seeds is None else cost_of_seeds(runs, declared, seeds)
    result = {
        **verdict.as_json(),
        "cost_of_a_verdict": {"seeds": seeds, "flops": flops, "seconds": seconds},
        "a_a_null": null_of(verdict.difference),
        "tokens_per_second": _speeds(runs),
        "rates": found,
        "rules": list(rules),
        "flops": sum(run.row["flops_own"] for run in runs),
        "flops_of_rates": sum(each["flops"] for each in found.values()),
        "runs": len(runs),
    }
    page = study_page(result, by_point(runs), plateaus)
    folder.write("report.md", page)
    folder.write(f"{RUNS}.tex", as_latex([runs_table(by_point(runs), plateaus)]))
    folder.write(VERDICT, json.dumps(result, indent=1, allow_nan=False) + "\n")
    folder.finish({"job": "conclude", "verdict": verdict.word})
    print(page)
    print(f"wrote {folder.path / VERDICT}, report.md, {RUNS}.jsonl and {TABLES}/")
    if lock is not None:
        lock.close()


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _csv(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in run.row.items()} for run in runs)
    return text.getvalue()


def _speeds(runs: Sequence[Run]) -> dict[str, float]:
    """Tokens per second by size: all tokens of its runs over all of their time."""
    found = {}
    for size in dict.fromkeys(run.row["size"] for run in runs):
        timed = [run.row["tokens_per_second"] for run in runs if run.row["size"] == size and run.seconds]
        weights = [run.seconds for run in runs if run.row["size"] == size and run.seconds]
        if timed:
            found[size] = sum(speed * time for speed, time in zip(timed, weights, strict=True)) / sum(weights)
    return found
