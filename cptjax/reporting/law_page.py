"""A fitted law as a page: its parameters with intervals, what is to be doubted, and the pictures that show it."""

from collections.abc import Mapping
from typing import Any

from cptjax.reporting.law_plots import Fitted, law_charts
from cptjax.reporting.rendering import render
from cptjax.reporting.tables import Cell, Table, as_table
from cptjax.reporting.wording import NONE, percent


def law_page(result: Mapping[str, Any], fitted: Fitted, path: str) -> str:
    """The page as HTML.

    Args:
        result: what fit.json holds.
        path: of the folder.
    """
    said = type(fitted.law).__doc__ or f"A law of {', '.join(fitted.law.columns)}."
    formula, _, about = " ".join(said.split()).partition(". ")
    return render(
        "law.html.j2",
        title=f"{result['law']}: {result['runs']} runs",
        path=path,
        formula=formula,
        about=about,
        doubts=result["warnings"],
        tables=law_tables(result),
        charts=law_charts(fitted),
    )


def law_tables(result: Mapping[str, Any]) -> list[Table]:
    """The page's tables: parameters, the laws that were considered if there were several, and errors."""
    choice = [_choice(result)] if result["choice"] else []
    return [_parameters(result), *choice, _errors(result)]


def _parameters(result: Mapping[str, Any]) -> Table:
    ranges, profile = result["intervals"] or {}, result["profile"]
    rows = []
    for name, value in result["params"].items():
        frozen = name in result["settings"]["frozen"]
        rows.append(
            [
                name,
                f"{value:.5g}",
                "given" if frozen else _range(ranges.get(name)),
                NONE if frozen else _range(profile.get(name)),
            ]
        )
    for name, its in result["allocation"].items():
        rows.append([name.replace("_", " "), f"{its['value']:.5g}", _range(its["interval"]), NONE])
    varies = result["intervals_vary"]
    head = ["", "estimate", Cell("95%", f"bootstrap over {varies}" if varies else ""), Cell("95%", "profile")]
    return as_table("Parameters", head, rows, (1, 2, 3))


def _errors(result: Mapping[str, Any]) -> Table:
    rows = [["fitted runs, root mean square of the log", percent(result["log_loss_residual"])]]
    if error := result["held_out"]:
        rows += [
            [
                f"held out: {error['runs']} runs above {error['axis']} {error['above']:.4g}",
                percent(error["relative_error"]),
            ],
            ["of what is above E", NONE if error["reducible_error"] is None else percent(error["reducible_error"])],
            ["root mean square", f"{error['root_mean_square']:.4f}"],
            [
                Cell("skill over a straight line in log-log", "1: no error; 0: no better than the line"),
                NONE if error["skill"] is None else f"{error['skill']:.3f}",
            ],
        ]
    noise = result["seed_deviation"]
    rows.append(["standard deviation of seeds", NONE if noise is None else f"{noise:.4f}"])
    return as_table("How wrong it is", ["", "error"], rows, (1,))


def _choice(result: Mapping[str, Any]) -> Table:
    rows = [
        [
            Cell(row["law"], "chosen" if row["chosen"] else ""),
            NONE if row["inner_error"] is None else percent(row["inner_error"]),
            NONE if row["held_out_error"] is None else percent(row["held_out_error"]),
            row["reason"] or "",
        ]
        for row in result["choice"]
    ]
    head = ["law", Cell("inner error", "chosen by"), Cell("held-out error", "no part in it"), ""]
    return as_table("The laws that were considered", head, rows, (1, 2))


def _range(pair: list[float | None] | None) -> str:
    if pair is None:
        return NONE
    return " to ".join("unbounded" if end is None else f"{end:.4g}" for end in pair)
