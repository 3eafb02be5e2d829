"""A selection as a page: what each stage dropped and why, with the texts, so that people can judge it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cptjax.counts import count
from cptjax.data.units import Units
from cptjax.reporting.exposures import policy_names
from cptjax.reporting.palette import style
from cptjax.reporting.plots import Chart, Series, lines
from cptjax.reporting.progress import duration
from cptjax.reporting.rendering import render
from cptjax.reporting.selection_map import selection_map
from cptjax.reporting.tables import Cell, Table, as_table
from cptjax.reporting.wording import NONE, flops, listed, percent, plural
from cptjax.scaling.repetition import Repetition
from cptjax.selection.selected import Evidence, Selection

PAIRS = 8  # of each stage
CLUSTERS, MEMBERS = 6, 2  # whose most and least typical passages are shown, and how many of either
CHARACTERS = 500  # of a text


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a selection took. seconds: by stage, and of this process in all; embedding, comparing: operations, counted."""

    by_stage: Mapping[str, float]
    seconds: float
    embedding: float
    comparing: float
    train_tokens: int | None
    train_params: float | None


@dataclasses.dataclass(frozen=True)
class Shown:
    """A text: its id, what is to be said of it, and how it begins."""

    id: str
    said: str
    text: str


@dataclasses.dataclass(frozen=True)
class Group:
    """Texts under a heading; side by side where they are pairs."""

    heading: str
    sentence: str
    rows: tuple[tuple[Shown, ...], ...]


def selection_page(
    path: str,
    made_of: Mapping[str, Any],
    units: Units,
    selection: Selection,
    totals: Mapping[str, int],
    costs: Costs,
    advice: Sequence[str],
    others: Sequence[Repetition],
    regime: str,
) -> str:
    """The page as HTML. Of the texts it holds a few, each cut to its first 500 characters."""
    wanted = _wanted(selection)
    texts = _texts(units, {unit for _, _, rows in wanted for row in rows for unit, _ in row})
    groups = [
        Group(heading, sentence, tuple(tuple(_shown(units, texts, *each) for each in row) for row in rows))
        for heading, sentence, rows in wanted
        if rows
    ]
    what = "passages" if units.passages else "documents"
    tables = [_by_stage(units, selection)]
    tables += [
        as_table(each.heading, each.rows[0], each.rows[1:], range(1, 9)) for each in selection.evidence if each.rows
    ]
    return render(
        "selection.html.j2",
        title=f"Selection: {totals['kept_units']:,} of {totals['units']:,} {what} kept",
        path=path,
        policy=" then ".join(policy_names(made_of["policy"])),
        sentences=[f"{sentence}." for sentence in selection.found],
        tables=tables,
        cost=_cost(costs, units, totals),
        cost_sentences=_cost_sentences(costs, units, totals),
        advice=[f"{sentence}." for sentence in advice],
        sweep=_sweep(others) if others else None,
        regime={
            "fixed_data": "Fixed data: the corpus is what it is; a smaller share is repeated more often.",
            "fixed_compute": "Fixed compute: what is kept is as much as is trained on, once; a smaller share was drawn from more.",
        }[regime],
        charts=_maps(selection),
        curves=_curves(selection),
        groups=groups,
    )


def _by_stage(units: Units, selection: Selection) -> Table:
    counted, sizes = units.tokens is not None, units.sizes
    rows = []

    def row(name: str, which: np.ndarray) -> None:
        size = sizes[which].sum()
        share = percent(which.sum() / max(1, len(units)))
        of_size = percent(size / max(1, sizes.sum()))
        rows.append([name, Cell(f"{int(which.sum()):,}", share), Cell(count(int(size)), of_size)])

    row("the corpus", np.ones(len(units), bool))
    for n, reason in enumerate(selection.reasons):
        row(f"dropped: {reason.stage.replace('_', ' ')}", selection.reason == n)
    row("kept", selection.kept)
    head = ["", "passages" if units.passages else "documents", "tokens" if counted else "bytes"]
    return as_table("What each stage dropped", head, rows, (1, 2))


def _cost(costs: Costs, units: Units, totals: Mapping[str, int]) -> Table:
    rows = [[name.replace("_", " "), duration(seconds)] for name, seconds in costs.by_stage.items()]
    rows.append(["this process in all", duration(costs.seconds)])
    return as_table("What it took", ["stage", Cell("time", "of the process that ended it")], rows, (1,))


def _cost_sentences(costs: Costs, units: Units, totals: Mapping[str, int]) -> list[str]:
    """The cost of the selection against the training that it saves."""
    said = []
    whole = costs.embedding + costs.comparing
    parts = (("embedding", costs.embedding), ("clustering and comparing", costs.comparing))
    told = [f"{flops(int(operations))} for {what}" for what, operations in parts if operations]
    if told:
        said.append(f"Floating-point operations: {listed(told)}; those of matrix products, counted.")
    if costs.train_tokens is None or costs.train_params is None:
        said.append("TRAIN_TOKENS and TRAIN_PARAMS would set this against the training that it is for.")
        return said
    training = 6 * costs.train_params * costs.train_tokens
    as_tokens = count(round(whole / (6 * costs.train_params)))
    said.append(
        f"The training that it is for takes about {flops(int(training))} (6ND, an estimate): the selection is "
        f"{percent(whole / training)} of it, as much as {as_tokens} tokens of that training, and pays where it saves more than "
        "these. D4 reports about 20% of the steps saved at 6.7B parameters; what it is here only a run can tell."
    )
    dropped = totals["tokens"] - totals["kept_tokens"]
    saved = 6 * costs.train_params * dropped
    said.append(
        f"One epoch over what is kept, not over the corpus, saves {count(dropped)} tokens: {flops(int(saved))} operations."
    )
    return said


def _sweep(others: Sequence[Repetition]) -> Table:
    rows = [
        [
            percent(each.share),
            count(each.unique),
            f"{each.epochs:.3g}",
            percent(each.worth / each.trained),
            NONE if each.loss is None else f"{each.loss:.4f}",
        ]
        for each in others
    ]
    head = [
        "share kept",
        "tokens",
        "epochs",
        Cell("worth", "of as much new text"),
        Cell("cost of repeating", "nats per token"),
    ]
    return as_table("Other shares of this corpus for the same training", head, rows, range(5))


def _wanted(selection: Selection) -> list[tuple[str, str, list[list[tuple[int, str]]]]]:
    """What is shown: (heading, sentence, rows of (unit, what is said of it))."""
    found = []
    for n, reason in enumerate(selection.reasons):
        pairs = np.flatnonzero((selection.reason == n) & (selection.instead >= 0))
        rows = [
            [
                (int(unit), f"dropped, {selection.score[unit]:.4f}"),
                (int(selection.instead[unit]), "stands before it, or stays"),
            ]
            for unit in _spread(pairs, selection.score)
        ]
        name = reason.stage.replace("_", " ")
        sentence = f"{plural(len(pairs), 'pair')}, from the most alike to the least; the number is the similarity."
        found.append((f"Dropped pairs: {name}", sentence, rows))
    for evidence in selection.evidence:
        if evidence.typicality is not None and np.isfinite(evidence.typicality).any():
            found += _prototypes(evidence)
        for title, members in evidence.samples:
            rows = [[(int(evidence.units[i]), _said(selection, evidence.units[i]))] for i in members]
            found.append((title, "The number is the classifier's probability.", rows))
    return found


def _said(selection: Selection, unit: int) -> str:
    return f"{'kept' if selection.kept[unit] else 'dropped'}, {selection.score[unit]:.4f}"


def _spread(units: np.ndarray, score: np.ndarray) -> list[int]:
    """PAIRS of the units, evenly over their scores, both ends among them."""
    ordered = units[np.argsort(-score[units], kind="stable")]
    if len(ordered) <= PAIRS:
        return ordered.tolist()
    return ordered[np.linspace(0, len(ordered) - 1, PAIRS).round().astype(int)].tolist()


def _prototypes(evidence: Evidence) -> list[tuple[str, str, list[list[tuple[int, str]]]]]:
    """Of clusters of many sizes the most and the least typical units."""
    labels, place = evidence.labels, evidence.typicality
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    names = names[np.argsort(-counts, kind="stable")]
    names = names[np.unique(np.linspace(0, len(names) - 1, CLUSTERS).round().astype(int))] if len(names) else names
    found = []
    for label in names.tolist():
        members = np.flatnonzero((labels == label) & np.isfinite(place))
        members = members[np.argsort(place[members], kind="stable")]
        least, most = members[:MEMBERS], members[::-1][:MEMBERS]
        rows = [
            [
                (int(evidence.units[i]), f"{how}, place {place[i]:.3f}")
                for how, i in (("least typical", low), ("most typical", high))
            ]
            for low, high in zip(least, most, strict=True)
        ]
        found.append(
            (
                f"Cluster {label}",
                f"{plural(len(members), 'unit')}; the least typical left, the most typical right.",
                rows,
            )
        )
    return found


def _texts(units: Units, wanted: set[int]) -> dict[int, str]:
    """How these units begin; the corpus is read once more."""
    found: dict[int, str] = {}
    documents = {int(units.document[unit]) for unit in wanted}
    for number, (document, members) in enumerate(units.with_documents()):
        if number in documents:
            for unit in wanted.intersection(members):
                text = document.text[units.begin[unit] : units.end[unit]]
                found[unit] = text[:CHARACTERS] + ("…" if len(text) > CHARACTERS else "")
    return found


def _shown(units: Units, texts: Mapping[int, str], unit: int, said: str) -> Shown:
    return Shown(units.id(unit), said, texts[unit])


def _maps(selection: Selection) -> list[Chart]:
    return [
        selection_map(f"map-{n}", evidence, selection)
        for n, evidence in enumerate(selection.evidence)
        if evidence.points is not None and len(evidence.units) > 2
    ]


def _curves(selection: Selection) -> list[Chart]:
    return [
        lines(
            f"curves-{n}",
            f"{evidence.title}: by threshold, on held-out texts",
            [Series(label, x, y, style(i), markers=False) for i, (label, x, y) in enumerate(evidence.curves)],
            "threshold",
            x_max=1.0,
            zero=True,
        )
        for n, evidence in enumerate(selection.evidence)
        if evidence.curves
    ]
