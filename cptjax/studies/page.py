"""A study's report: its verdict first, then what it rests on. Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.counts import count
from cptjax.evaluation.bootstrap import FEW_DOCUMENTS
from cptjax.reporting.progress import duration
from cptjax.reporting.table_text import as_markdown
from cptjax.reporting.tables import Table, as_table
from cptjax.studies.rates import described_losses
from cptjax.studies.savings import savings
from cptjax.studies.table import Run

_UNITS = {"bits_per_byte": "bits per byte", "loss": "nats per token"}


def study_page(result: Mapping[str, Any], points: Mapping[tuple, Sequence[Run]], plateaus: set[str]) -> str:
    """The page. `result` is the content of verdict.json; `points` the runs by arm, size, prior and budget."""
    lines = [
        *_verdict(result),
        *_null(result["a_a_null"]),
        *_price(result),
        "",
        "## Learning rates",
        "",
        *(_rates(result["rates"]) or ["None was searched for."]),
        *(["", *result["rules"]] if result.get("rules") else []),
        "",
        as_markdown([runs_table(points, plateaus)], level=2),
        "## Compute saved at equal annealed bits per byte (exploratory)",
        "",
        *(
            [f"- {each.describe()}" for each in savings(points)]
            or ["No arm continues another beside runs from random weights."]
        ),
        "",
        f"{result['runs']} runs, {count(result['flops'])} FLOPs counted in them, and {count(result['flops_of_rates'])} in the"
        " search for learning rates.",
        "Each arm has the learning rate found for it; every run but a trunk's went to the end of its own schedule.",
        *_shared(points),
    ]
    return "\n".join(lines) + "\n"


def _verdict(result: Mapping[str, Any]) -> list[str]:
    contrast, found = result["contrast"], result["difference"]
    unit = _UNITS[contrast["metric"]]
    other = "" if not contrast["worse_tokens"] else f" (`{contrast['worse']}` after {contrast['worse_tokens']:,.0f})"
    what = (
        f"`{contrast['better']}` below `{contrast['worse']}` at size {contrast['size']} after {contrast['tokens']:,.0f}"
        f" tokens{other}, in {unit}"
    )
    lines = [
        f"# {result['verdict'].capitalize()}",
        "",
        f"Primary contrast, declared before the first run: {what}; the smallest effect worth finding is {contrast['effect']:g}.",
        "",
        f"**{result['verdict']}**: {result['why']}.",
        "",
    ]
    if found["deviation"] is None:
        return [
            *lines,
            f"Measured difference {found['value']:+.4f}; no interval, for nothing tells how seeds vary.",
            "",
        ]
    varies = "trunks, in pairs, and documents" if found["paired"] else "seeds (with their trunks) and documents"
    return [
        *lines,
        f"Measured difference {found['value']:+.4f} {unit}, 95% interval [{found['low']:+.4f}, {found['high']:+.4f}] over {varies};"
        f" {result['seeds']} seeds of each arm. Seeds alone move the difference of two runs by {found['deviation']:.4f} (one"
        f" deviation), the choice of the {found['held_out']} held-out documents by {math.sqrt(found['documents']):.4f}"
        + (
            f"; fewer than {FEW_DOCUMENTS} are too few for a bootstrap to be believed."
            if found["held_out"] < FEW_DOCUMENTS
            else "."
        ),
        "",
    ]


def _null(found: Mapping[str, int] | None) -> list[str]:
    if found is None:
        return []
    return [
        f"Arms that differ in seed alone (A/A), simulated {found['studies']:,} times with these seeds, documents and"
        f" deviations, are told apart {found['rejected']} times; nominally at most {found['studies'] // 20}.",
        "",
    ]


def _price(result: Mapping[str, Any]) -> list[str]:
    cost, contrast = result["cost_of_a_verdict"], result["contrast"]
    if cost["seeds"] is None:
        why = (
            "one seed does not tell how seeds vary: run two of each arm at least"
            if result["difference"]["deviation"] is None
            else "no number of seeds does: the held-out documents alone leave too much open; hold out more of them"
        )
        return [f"What a verdict would cost: for an effect of {contrast['effect']:g}, {why}."]
    time = "an unknown time" if cost["seconds"] is None else duration(cost["seconds"])
    return [
        f"What a verdict would cost: an effect of {contrast['effect']:g} is found with a chance of 80% by {cost['seeds']} seeds of"
        f" each arm (deviations as measured here): {count(cost['flops'])} FLOPs and {time} of training at the speed measured"
        " here, for the two points and their trunks; the search for learning rates and the other points come on top.",
    ]


def _rates(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, its in found.items():
        tried = described_losses(its["rates"], its["losses"])
        state = "bracketed" if its["bracketed"] else "**not bracketed: at the edge of those tried**"
        lines.append(f"- {name}: {its['best']:g}, {state} ({tried} nats per token of {its['target']})")
    return lines


def runs_table(points: Mapping[tuple, Sequence[Run]], plateaus: set[str]) -> Table:
    """The runs by arm, size, prior and budget: means over seeds, and their deviation."""
    lines = []
    for (arm, size, prior, budget), runs in points.items():
        rows = [run.row for run in runs]
        measured = [_mean([row[name] for row in rows]) for name in ("loss", "bits_per_byte")]
        annealed = "yes" if all(row["annealed"] for row in rows) else "trunk" if arm in plateaus else "NO"
        flops = count(float(np.mean([row["flops"] for row in rows])))
        after = "-" if prior is None else f"{prior:,}"
        lines.append([arm, size, f"{budget:,}", after, flops, str(len(rows)), rows[0]["target"], *measured, annealed])
    head = [
        "arm",
        "size",
        "budget, tokens",
        "after",
        "FLOPs",
        "seeds",
        "measured on",
        "nats/token",
        "bits/byte",
        "annealed",
    ]
    return as_table("Runs (exploratory, all but the contrast)", head, lines, (2, 3, 4, 5, 7, 8))


def _shared(points: Mapping[tuple, Sequence[Run]]) -> list[str]:
    """Why some rows of the table have more FLOPs than others of the same tokens."""
    arms = {
        key[0]: None for key, runs in points.items() if any(run.row["flops"] > run.row["flops_own"] for run in runs)
    }
    if not arms:
        return []
    return [
        f"The FLOPs of {', '.join(arms)} are with their trunk's, whose blend they go on with: both together are one budget."
    ]


def _mean(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"
