"""What a plan's rows hold, as a page: lengths, shares, duplicates within and across sources, exam items."""

import dataclasses
import json
from collections.abc import Sequence

from cptjax.counts import count
from cptjax.data.inspection import HELD_OUT, NEAR, Contamination, Inspection, Overlap
from cptjax.data.source_facts import QUANTILES, SourceFacts
from cptjax.reporting.histograms import histogram
from cptjax.reporting.palette import Style, styles
from cptjax.reporting.plots import Chart, Span, shares
from cptjax.reporting.rendering import render
from cptjax.reporting.tables import Cell, Table, as_table
from cptjax.reporting.wording import NONE, percent, plural


@dataclasses.dataclass(frozen=True)
class Part:
    """A section of the page: sentences, then tables, then charts."""

    heading: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()


def inspection_page(name: str, path: str, found: Inspection) -> str:
    """The page as HTML; `name` and `path` are the run's."""
    looks = styles(source.name for source in found.sources)
    parts = [_sources(found), _stages(found, looks), _lengths(found.sources, looks), _duplicates(found), _leaks(found)]
    if found.contamination:
        parts.append(_exams(found.contamination))
    footer = "Written by cptjax from the packed rows of the run."
    title = f"The data of {name}"
    return render("inspection.html.j2", title=title, path=path, warnings=warnings(found), parts=parts, footer=footer)


def inspection_json(found: Inspection) -> str:
    """Everything as JSON text."""
    return json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False) + "\n"


def warnings(found: Inspection) -> list[str]:
    """What whoever trains on this should know first, as sentences."""
    said = [
        f"Held-out text of {each.of[0]} is in the training rows of {each.inside[0]}: "
        f"{plural(each.near, 'document')} of {each.documents:,} ({_share(each.near_tokens, each.tokens)} of its tokens). "
        "A loss measured on it is partly memory."
        for each in found.leaks()
        if each.near
    ]
    return said + [
        f"Of {each.of:,} items of the exam {each.exam} {each.items:,} stand in the training rows of {each.source} "
        f"({plural(each.documents, 'document')})."
        for each in found.contamination
        if each.items
    ]


def describe_inspection(found: Inspection) -> list[str]:
    """For the terminal: duplicates, and what `warnings` says."""
    lines = [f"{'training rows of':24} {'in those of':24} {'same':>8} {'nearly':>8} {'of':>10} {'tokens':>8}"]
    for each in [*found.within(), *(each for each in found.across() if each.near)]:
        lines.append(
            f"{each.of[0]:24} {each.inside[0]:24} {each.exact:>8,} {each.near:>8,} {each.documents:>10,} "
            f"{_share(each.near_tokens, each.tokens):>8}"
        )
    return lines + [f"warning: {sentence}" for sentence in warnings(found)]


def _sources(found: Inspection) -> Part:
    rows = [
        [
            Cell(each.name, "" if each.trained else "evaluated only"),
            *(
                [
                    f"{each.documents:,}",
                    count(each.bytes),
                    count(each.tokens),
                    f"{each.rows:,}",
                    f"{each.fill:.2%}",
                    f"{found.epochs[each.name]:.3g}",
                ]
                if each.trained
                else [NONE] * 6
            ),
            Cell(count(each.held_out_tokens), plural(each.held_out_documents, "document")),
        ]
        for each in found.sources
    ]
    head = [
        "source",
        "documents",
        "bytes",
        "tokens",
        "rows",
        Cell("fill", "of positions"),
        "epochs",
        Cell("held out", "tokens"),
    ]
    said = "What training reads of each source; epochs are those of the whole run, with what a trunk had read of it."
    return Part("Sources", (said,), (as_table("Sources", head, rows, range(1, 8)),))


def _stages(found: Inspection, looks: dict[str, Style]) -> Part:
    rows = [
        [
            each.stage,
            each.source,
            f"{each.first:,} – {each.last:,}",
            f"{each.share:.2%}",
            count(each.tokens),
            count(each.bytes),
            f"{each.epochs:.3g}",
        ]
        for each in found.stages
    ]
    by_stage: dict[str, dict[str, float]] = {}
    spans = {}
    for each in found.stages:
        by_stage.setdefault(each.stage, {})[each.source] = each.share
        spans[each.stage] = (each.first - 1, each.last)
    drawn = [Span(name, *spans[name], by_stage[name]) for name in spans]
    chart = shares("shares", "Shares of tokens by step", drawn, looks, "steps", read=None)
    head = ["stage", "source", "steps", Cell("share", "of tokens"), "tokens", "bytes", "epochs"]
    return Part("Stages", (), (as_table("Stages", head, rows, range(2, 7)),), (chart,))


def _lengths(sources: Sequence[SourceFacts], looks: dict[str, Style]) -> Part:
    trained = [each for each in sources if each.trained and each.lengths]
    rows = [
        [
            each.name,
            *(f"{each.lengths[name]:,}" for name in QUANTILES),
            Cell(f"{each.cut:,}", _share(each.cut, each.documents)),
        ]
        for each in trained
    ]
    charts = [
        histogram(
            f"lengths-{number}",
            f"{each.name}: documents by length",
            each.histogram["edges"],
            each.histogram["counts"],
            looks[each.name],
            "tokens of a document",
        )
        for number, each in enumerate(trained)
    ]
    said = (
        "Tokens of a training document, its EOS included. A document is cut where it does not fit in what is left of a row: "
        "its later pieces are read without what came before."
    )
    head = ["source", *QUANTILES, Cell("cut", "over several rows")]
    return Part("Lengths", (said,), (as_table("Lengths", head, rows, range(1, 7)),), tuple(charts))


def _duplicates(found: Inspection) -> Part:
    said = [
        "Documents of training rows that are there more than once. The same: after Unicode NFKC, case and white space folded. "
        f"Near-duplicates: sets of 5-word runs with a Jaccard similarity of {NEAR:g} or more; the same texts are among them. "
        "Texts are as decoded from the tokens."
    ]
    if found.one_shingle_in > 1:
        said.append(
            f"There is so much text that one run of words in {found.one_shingle_in} was looked at: near-duplicates are estimated."
        )
    if found.chained:
        said.append(
            f"{found.chained:,} documents are in groups so large that a chain of near-duplicates counted as one."
        )
    across = [each for each in found.across() if each.near]
    tables = [_overlaps("Within a source", found.within(), "training rows of", "")]
    if across:
        tables.append(_overlaps("Across sources", across, "training rows of", "also in those of"))
    if len(found.across()) > len(across):
        said.append(
            "All other pairs of sources share none." if across else "No document is in another source, nor nearly."
        )
    return Part("Duplicates in training rows", tuple(said), (*tables, *_examples([*found.within(), *across])))


def _leaks(found: Inspection) -> Part:
    shared = [each for each in found.leaks() if each.near]
    if not found.leaks():
        return Part("Held-out text in training rows", ("No text is held out.",))
    held = sum({each.of: each.documents for each in found.leaks()}.values())
    said = (
        "Each source is split by itself: what one of them holds out may be in the training rows of another, and a loss on it then "
        f"says too little about new text. {plural(held, 'held-out document')} compared with all training rows."
    )
    if not shared:
        return Part("Held-out text in training rows", (said, "None is in any, nor nearly."))
    tables = [
        _overlaps("Held-out text in training rows", shared, "held out of", "in the training rows of"),
        *_examples(shared),
    ]
    return Part("Held-out text in training rows", (said,), tuple(tables))


def _exams(found: Sequence[Contamination]) -> Part:
    rows = [
        [
            Cell(each.exam.rpartition("/")[2], each.exam),
            each.source,
            Cell(f"{each.items:,}", f"of {each.of:,}"),
            f"{each.documents:,}",
            "; ".join(f"item {item:,}: {document}" for document, item in each.examples) or NONE,
        ]
        for each in found
    ]
    said = (
        "An item is in a document when they share a run of 13 words, or of 30 characters where a script has no spaces. Items are "
        "numbered from 1, as they stand in their file."
    )
    head = ["exam", "source", "items", "documents", "the first of them"]
    return Part("Exam items in training rows", (said,), (as_table("Exam items", head, rows, (2, 3)),))


def _overlaps(label: str, found: Sequence[Overlap], of: str, inside: str) -> Table:
    rows = [
        [
            each.of[0],
            *([each.inside[0]] if inside else []),
            Cell(f"{each.exact:,}", _share(each.exact_tokens, each.tokens) + " of tokens"),
            Cell(f"{each.near:,}", _share(each.near_tokens, each.tokens) + " of tokens"),
            f"{each.documents:,}",
        ]
        for each in found
    ]
    head = [
        of,
        *([inside] if inside else []),
        Cell("the same", "documents"),
        Cell("near-duplicates", "the same included"),
        "of documents",
    ]
    return as_table(label, head, rows, range(len(head) - 3, len(head)))


def _examples(found: Sequence[Overlap]) -> list[Table]:
    seen, rows = set(), []
    for each in found:
        for one, other, similarity in each.examples:
            pair = frozenset(((each.of, one), (each.inside, other)))
            if pair not in seen:
                seen.add(pair)
                rows.append([Cell(one, _named(each.of)), Cell(other, _named(each.inside)), f"{similarity:.3f}"])
    head = ["document", "and", "similarity"]
    return [as_table("Examples", head, rows, (2,))] if rows else []


def _named(which: tuple[str, str]) -> str:
    return f"{which[0]}, {which[1]}" if which[1] == HELD_OUT else which[0]


def _share(part: float, whole: float) -> str:
    return percent(part / whole) if whole else NONE
