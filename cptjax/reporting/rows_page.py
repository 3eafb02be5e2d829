"""The rows of a step as a page: what was read, by whom it was written, and everything in it that cannot be seen."""

import dataclasses
import json
from collections.abc import Sequence

from cptjax.data.plan import DataPlan
from cptjax.data.step_rows import ReadPiece, ReadRow
from cptjax.data.tokenizer import Tokenizer
from cptjax.reporting.rendering import render
from cptjax.reporting.tables import Table, as_table
from cptjax.reporting.visible_text import SPECIAL, Span, visible
from cptjax.reporting.wording import plural


@dataclasses.dataclass(frozen=True)
class ShownPiece:
    """A piece as the page shows it: before it the special token that begins it, or what stands before as context."""

    id: str
    where: str
    context: str
    spans: tuple[Span, ...]


@dataclasses.dataclass(frozen=True)
class ShownRow:
    """A row as the page shows it."""

    index: int
    heading: str
    pieces: tuple[ShownPiece, ...]
    padding: str


def rows_page(
    name: str,
    path: str,
    plan: DataPlan,
    rows: Sequence[ReadRow],
    tokenizer: Tokenizer,
    most: int,
    passed_over: bool = False,
) -> str:
    """The page of a step, as HTML.

    Args:
        name, path: of the run. rows: of the whole batch, of which the first `most` are shown.
        passed_over: the run was told not to read this step (SKIP_STEPS).
    """
    step = rows[0].step
    # A text may hold both tokens written out; only bos and eos are known to be special here.
    special = [tokenizer.decode([i]) for i in dict.fromkeys((tokenizer.bos, tokenizer.eos)) if i is not None]
    return render(
        "rows.html.j2",
        title=f"Step {step:,} of {name}",
        path=path,
        sentences=_said(plan, rows),
        warning=f"The run was told to pass over step {step:,}: these rows were not read." if passed_over else "",
        summary=_summary(rows),
        rows=[_shown(row, plan, tokenizer, special) for row in rows[:most]],
        left_out=_left_out(len(rows), most),
    )


def rows_lines(rows: Sequence[ReadRow]) -> str:
    """The rows as JSON lines: step, index, source, row, epoch, padding, pieces."""
    return "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows)


def describe_rows(plan: DataPlan, rows: Sequence[ReadRow]) -> list[str]:
    """For the terminal: the step's stage, and how many rows of each source."""
    return [
        f"step {rows[0].step:,} of {plan.steps:,}, stage {plan.stage_of(rows[0].step - 1).name!r}: {len(rows):,} rows"
    ] + [
        f"  {name}: {plural(len(mine), 'row')}, {plural(_documents(mine), 'document')}, "
        f"{sum(len(piece.tokens) for row in mine for piece in row.pieces):,} tokens"
        for name, mine in _by_source(rows).items()
    ]


def _said(plan: DataPlan, rows: Sequence[ReadRow]) -> list[str]:
    step = rows[0].step
    return [
        f"Step {step:,} of {plan.steps:,}, counted from 1 as the log does, in the stage “{plan.stage_of(step - 1).name}”.",
        "Rows are numbered from 0, in the batch and in their sources.",
        "The text is as decoded from the tokens that the model read; each token belongs to one piece.",
    ]


def _summary(rows: Sequence[ReadRow]) -> Table:
    lines = [
        [
            name,
            f"{len(mine):,}",
            f"{len(mine) / len(rows):.1%}",
            f"{_documents(mine):,}",
            f"{sum(len(piece.tokens) for row in mine for piece in row.pieces):,}",
            f"{sum(row.padding for row in mine):,}",
        ]
        for name, mine in _by_source(rows).items()
    ]
    head = ["source", "rows", "of the step", "documents", "tokens", "padding"]
    return as_table("The step's rows by source", head, lines, range(1, 6))


def _shown(row: ReadRow, plan: DataPlan, tokenizer: Tokenizer, special: Sequence[str]) -> ShownRow:
    epoch = f", epoch {row.epoch}"
    heading = f"{row.source}, row {row.row:,} of {plan.sources[row.source].rows:,}{epoch}"
    padding = f"{plural(row.padding, 'position')} of padding" if row.padding else ""
    return ShownRow(row.index, heading, tuple(_shown_piece(piece, tokenizer, special) for piece in row.pieces), padding)


def _shown_piece(piece: ReadPiece, tokenizer: Tokenizer, special: Sequence[str]) -> ShownPiece:
    last = piece.first + len(piece.tokens)
    if piece.begins and piece.ends:
        where = f"whole: {plural(piece.of, 'token')}"
    else:
        how = "begins here" if piece.begins else "ends here" if piece.ends else "goes on here"
        where = f"{how}: tokens {piece.first + 1:,} to {last:,} of {piece.of:,}"
    spans = list(visible(piece.text, special))
    if piece.begins:
        spans.insert(0, Span(tokenizer.decode([piece.context]), SPECIAL))
    if piece.ends and piece.tokens[-1] == tokenizer.eos:
        spans.append(Span(tokenizer.decode([tokenizer.eos]), SPECIAL))
    context = (
        "" if piece.begins else "".join(span.text for span in visible(tokenizer.decode([piece.context]))).strip("\n")
    )
    return ShownPiece(piece.id, where, context, tuple(spans))


def _left_out(rows: int, most: int) -> str:
    if rows <= most:
        return ""
    return f"{plural(rows - most, 'more row')} of this step not shown here (MOST_ROWS = {most:,}); rows.jsonl has all."


def _by_source(rows: Sequence[ReadRow]) -> dict[str, list[ReadRow]]:
    found: dict[str, list[ReadRow]] = {}
    for row in rows:
        found.setdefault(row.source, []).append(row)
    return found


def _documents(rows: Sequence[ReadRow]) -> int:
    return len({piece.id for row in rows for piece in row.pieces})
