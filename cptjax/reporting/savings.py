"""What runs saved over others at equal loss, and what each gave for what it took, for a report: a table, and rows of JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from cptjax.evaluation.table import CURVE_UNITS, CURVES
from cptjax.evaluation.trades import trades
from cptjax.reporting.comparison import Comparison, Estimate, Split, common_metric, finite, mean_change
from cptjax.reporting.tables import Cell, Table, as_table, estimate_cell
from cptjax.reporting.wording import listed, number, plural, signed

TRADES = "trades.jsonl"


def savings_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """A row for each number that an evaluation read off its curves."""
    lines: list[list[str | Cell]] = []
    before = None
    for row in rows:
        if row["suite"] != CURVES:
            continue
        estimate = Estimate(row["value"], row["low"], row["high"])
        tokens = row["metric"] == "transferred_tokens"
        with_sign = "saved" in row["metric"] or row["metric"].startswith("forgetting")
        cell = estimate_cell(estimate, _tokens if tokens else signed if with_sign else number)
        named = Cell(row["subset"], plural(row["n"], "document")) if row["subset"] != before else ""
        before = row["subset"]
        lines.append([named, row["checkpoint"], CURVE_UNITS.get(row["metric"], row["metric"]), cell])
    return (
        as_table("Saved at equal loss", ["curves", "checkpoint", "measured", "value"], lines, (3,)) if lines else None
    )


def trade_rows(comparison: Comparison, split: Split) -> list[dict[str, Any]]:
    """Gain, forgetting, exchange rate and place on the frontier of each checkpoint, a row each as in evaluation.jsonl.

    Subset: the targets, an arrow, the domain that may be forgotten; in the unit that the report's table has.
    """
    if not split.targets or not split.forgotten:
        return []
    unit = common_metric(comparison, [*split.targets, *split.forgotten])
    rows = []
    for domain in split.forgotten:
        pairs = {
            label: (mean_change(comparison, split.targets, unit, label), mean_change(comparison, [domain], unit, label))
            for label in comparison.compared
        }
        pairs = {label: pair for label, pair in pairs.items() if all(map(finite, pair))}
        found = trades({label: (target.value, old.value) for label, (target, old) in pairs.items()})
        for label, (target, old) in pairs.items():
            trade = found[label]
            low, high = (None if bound is None else -bound for bound in (target.high, target.low))
            of = {
                "gain": Estimate(trade.gain, low, high, target.interval, target.n),
                "forgetting": Estimate(trade.forgetting, old.low, old.high, old.interval, old.n),
                "exchange_rate": None if trade.rate is None else Estimate(trade.rate, n=old.n),
                "on_frontier": Estimate(float(trade.on_frontier), n=old.n),
            }
            rows += [
                {
                    "checkpoint": label,
                    "step": None,
                    "tokens": comparison.tokens.get(label),
                    "suite": f"trade_{unit}",
                    "subset": f"{listed(split.targets)} -> {domain}",
                    "metric": metric,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "interval": estimate.interval,
                    "n": estimate.n,
                }
                for metric, estimate in of.items()
                if estimate is not None
            ]
    return rows


def _tokens(value: float, digits: int = 0) -> str:
    return f"{value:,.0f}".replace("-", "−")
