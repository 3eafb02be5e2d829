"""The table of an evaluation, for a terminal: a line for each number, a column for each checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

EVALUATION = "evaluation.jsonl"
UNITS = {"loss": "nats/token", "bits_per_byte": "bits/byte", "kl": "KL, nats/token"}


def results_table(rows: Sequence[Mapping[str, Any]], base: str | None = None) -> list[str]:
    """Lines: what was measured, its unit, then each checkpoint's value, with its change from `base` behind it.

    Args:
        rows: as evaluation.jsonl has them; the changes stored in it are left out, for they are the difference shown.
        base: the checkpoint that the others are compared with; None: the first.
    """
    checkpoints = list(dict.fromkeys(row["checkpoint"] for row in rows))
    base = checkpoints[0] if base is None and checkpoints else base
    values = {(row["suite"], row["subset"], row["metric"], row["checkpoint"]): row["value"] for row in rows}
    lines = [f"{'':24} {'':15}" + "".join(f" {name:>20}" for name in checkpoints)]
    named = ""
    for suite, subset, metric in dict.fromkeys((row["suite"], row["subset"], row["metric"]) for row in rows):
        if metric not in UNITS:
            continue
        cells = []
        for name in checkpoints:
            value, start = (values.get((suite, subset, metric, each)) for each in (name, base))
            change = f" ({value - start:+.3f})" if None not in (value, start) and name != base else ""
            cells.append(f" {('-' if value is None else f'{value:.4f}' + change):>20}")
        label = subset if suite == "loss" else f"{subset}'s own samples"
        lines.append(f"{label if label != named else '':24} {UNITS[metric]:15}" + "".join(cells))
        named = label
    return lines
