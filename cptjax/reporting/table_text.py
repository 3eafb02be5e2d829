"""A report's tables for papers and pages: as Markdown, and as LaTeX with booktabs."""

from collections.abc import Sequence

from cptjax.reporting.svg import plain
from cptjax.reporting.tables import Cell, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "→": r"$\to$",
    "‖": r"$\|$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
}


def as_markdown(tables: Sequence[Table], level: int = 3) -> str:
    """The tables one after another, each under its name as a heading of that level."""
    return "\n\n".join(_markdown(table, level) for table in tables) + "\n"


def as_latex(tables: Sequence[Table]) -> str:
    """The tables one after another, for \\input; they need booktabs."""
    return "\n".join(_latex(table) for table in tables)


def _markdown(table: Table, level: int) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rules = ["---:" if i in table.numbers else "---" for i in range(len(table.head))]
    rows = [line([_markdown_cell(cell) for cell in row]) for row in (table.head, *table.rows)]
    return "\n".join([f"{'#' * level} {table.label}", "", rows[0], line(rules), *rows[1:]])


def _markdown_cell(cell: Cell) -> str:
    text = plain(cell.text + (f" {cell.small}" if cell.small else ""))
    for letter in ("\\", "|", "*", "_", "`", "<"):
        text = text.replace(letter, f"\\{letter}")
    return text


def _latex(table: Table) -> str:
    columns = "".join("r" if i in table.numbers else "l" for i in range(len(table.head)))
    head, *rows = (" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in (table.head, *table.rows))
    return "\n".join(
        [
            f"% {plain(table.label)}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_cell(cell: Cell) -> str:
    small = rf" {{\footnotesize {_escaped(cell.small)}}}" if cell.small else ""
    text = _escaped(cell.text) + small
    return "{}" + text if text.startswith("[") else text  # a bracket behind \\ would be its argument


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in plain(text))
