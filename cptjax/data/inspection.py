"""What a plan's rows hold: lengths, shares, duplicates within and across sources, and exam items.

Everything is read from the packed rows, so that it is what training reads: texts are as decoded from the tokens.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cptjax.data.contamination import Exams
from cptjax.data.duplicates import find_duplicates
from cptjax.data.pieces import all_pieces, documents, text_of
from cptjax.data.plan import DataPlan
from cptjax.data.rows import RowReader
from cptjax.data.source_facts import SourceFacts, StageShare, source_facts, stage_shares
from cptjax.data.splits import same_text
from cptjax.data.tokenizer import Tokenizer
from cptjax.selection.shingles import ShingleStore, word_shingles

TRAIN, HELD_OUT = "training", "held out"
NEAR = 0.7  # the Jaccard similarity from which texts count as near-duplicates, whatever the run was split by
EXAMPLES = 5
_FIRST_SECONDS, _REPORT_SECONDS = 5.0, 30.0


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How much of one set of texts ("source", TRAIN or HELD_OUT) is in another; of a set in itself: in other documents of it.

    Attributes:
        exact, near: documents of `of` whose text, folded, is that of a document of `inside`, and those that are at least
            nearly so; exact_tokens, near_tokens: their tokens.
        documents, tokens: of `of` in all.
        examples: (id in `of`, id in `inside`, similarity); the same texts have 1 and come first.
    """

    of: tuple[str, str]
    inside: tuple[str, str]
    exact: int
    near: int
    exact_tokens: int
    near_tokens: int
    documents: int
    tokens: int
    examples: tuple[tuple[str, str, float], ...]


@dataclasses.dataclass(frozen=True)
class Contamination:
    """Items of an exam in a source's training documents.

    Attributes:
        items: found, of `of` in the file; documents: that hold one.
        examples: (id of the document, number of the item in the file, from 1).
    """

    exam: str
    source: str
    items: int
    of: int
    documents: int
    examples: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Inspection:
    """All of it.

    one_shingle_in: in how many shingles 1 was looked at (1: every one; else near-duplicates are estimated).
    chained: documents in groups so large that near-duplicates are told by chains (duplicates.py).
    """

    sources: tuple[SourceFacts, ...]
    stages: tuple[StageShare, ...]
    epochs: Mapping[str, float]
    overlaps: tuple[Overlap, ...]
    contamination: tuple[Contamination, ...]
    one_shingle_in: int
    chained: int

    def within(self) -> list[Overlap]:
        """Each source's training documents among themselves."""
        return [each for each in self.overlaps if each.of == each.inside and each.of[1] == TRAIN]

    def across(self) -> list[Overlap]:
        """Each source's training documents in the others'."""
        return [each for each in self.overlaps if each.of[1] == each.inside[1] == TRAIN and each.of != each.inside]

    def leaks(self) -> list[Overlap]:
        """Held-out documents in training documents: of their own source, and of the others."""
        return [each for each in self.overlaps if each.of[1] == HELD_OUT and each.inside[1] == TRAIN]


def inspect_plan(
    plan: DataPlan,
    train: Mapping[str, RowReader],
    held_out: Mapping[str, RowReader],
    tokenizer: Tokenizer,
    exams: Exams | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Inspection:
    """Reads all rows of a plan and tells what they hold.

    Args:
        train: of every source of the plan; held_out: of every source of which something is, the others of the run too.
        report: gets a line now and then.
    """
    sets = [(name, TRAIN) for name in train] + [(name, HELD_OUT) for name in held_out]
    readers = [*train.values(), *held_out.values()]
    collected = _Collected(exams)
    cut = {}
    for number, ((name, split), reader) in enumerate(zip(sets, readers, strict=True)):
        what = f"  {name}, {split}"
        cut[name, split] = _collect(collected, number, split == TRAIN, reader, tokenizer, what, report)
    member = np.array(collected.member, np.int64)
    report(f"  comparing {len(member):,} documents")
    found = find_duplicates(member, len(sets), np.array(collected.texts, np.uint64), collected.store.sets, NEAR)
    named = _Names(readers, member, collected.ordinals)
    tokens = np.array(collected.tokens, np.int64)
    overlaps = []
    for one, of in enumerate(sets):
        mine = member == one
        for other, inside in enumerate(sets):
            pairs = found.examples.get((min(one, other), max(one, other)), ())
            pairs = sorted(pairs, key=lambda pair: not pair.same)[:EXAMPLES]
            shown = [(pair.one, pair.other) if one <= other else (pair.other, pair.one) for pair in pairs]
            exact, near = found.exact[mine, other], found.near[mine, other]
            overlaps.append(
                Overlap(
                    of,
                    inside,
                    int(exact.sum()),
                    int(near.sum()),
                    int(tokens[mine][exact].sum()),
                    int(tokens[mine][near].sum()),
                    int(mine.sum()),
                    int(tokens[mine].sum()),
                    tuple((named(a), named(b), pair.similarity) for (a, b), pair in zip(shown, pairs, strict=True)),
                )
            )
    names = dict.fromkeys([*train, *held_out])
    return Inspection(
        tuple(source_facts(name, train.get(name), held_out.get(name), cut.get((name, TRAIN), 0)) for name in names),
        tuple(stage_shares(plan)),
        plan.epochs(plan.steps),
        tuple(overlaps),
        tuple(_contamination(exams, sets, collected, named)),
        collected.store.modulus,
        found.chained,
    )


class _Collected:
    """What is kept of every document: some numbers and its shingles; and the exam items that training documents hold."""

    def __init__(self, exams: Exams | None):
        self.exams = exams
        self.member: list[int] = []
        self.ordinals: list[int] = []
        self.tokens: list[int] = []
        self.texts: list[int] = []
        self.store = ShingleStore()
        self.items: dict[int, dict[int, list[int]]] = {}  # set -> item -> documents that hold it

    def add(self, member: int, ordinal: int, tokens: int, text: str, examined: bool) -> None:
        document = len(self.member)
        self.member.append(member)
        self.ordinals.append(ordinal)
        self.tokens.append(tokens)
        self.texts.append(same_text(text))
        self.store.add(word_shingles(text))
        if examined and self.exams is not None:
            for item in self.exams.found_in(text).tolist():
                self.items.setdefault(member, {}).setdefault(item, []).append(document)


def _collect(
    collected: _Collected,
    member: int,
    examined: bool,
    reader: RowReader,
    tokenizer: Tokenizer,
    what: str,
    report: Callable[[str], None],
) -> int:
    """Adds all documents of a folder of rows; returns how many are cut."""
    began = told = time.monotonic()
    pieces = all_pieces(reader)
    for number, (ordinal, tokens) in enumerate(documents(reader, pieces), start=1):
        text = text_of(tokens, reader, tokenizer)
        collected.add(member, ordinal, len(tokens) - 1, text, examined)
        if time.monotonic() - told > (_REPORT_SECONDS if told > began else _FIRST_SECONDS):
            told = time.monotonic()
            report(f"{what}: {number:,} of {reader.manifest.documents:,} documents read")
    report(f"{what}: {reader.manifest.documents:,} documents read")
    return int((np.unique(pieces.ordinal, return_counts=True)[1] > 1).sum())


class _Names:
    """The id of a document, looked up when it is asked for."""

    def __init__(self, readers: Sequence[RowReader], member: np.ndarray, ordinals: Sequence[int]):
        self._readers, self._member, self._ordinals = readers, member, ordinals

    def __call__(self, document: int) -> str:
        return self._readers[self._member[document]].documents([self._ordinals[document]])[0]["id"]


def _contamination(
    exams: Exams | None, sets: Sequence[tuple[str, str]], collected: _Collected, named: _Names
) -> list[Contamination]:
    found, begin = [], 0
    for exam, count in (exams.items if exams is not None else {}).items():
        for member, (name, split) in enumerate(sets):
            if split != TRAIN:
                continue
            held = {
                item: each for item, each in collected.items.get(member, {}).items() if begin <= item < begin + count
            }
            examples = [(named(held[item][0]), item - begin + 1) for item in sorted(held)[:EXAMPLES]]
            holding = {document for each in held.values() for document in each}
            found.append(Contamination(exam, name, len(held), count, len(holding), tuple(examples)))
        begin += count
    return found
