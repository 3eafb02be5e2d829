"""Cloze exams made of any held-out text: which of four passages of a document goes on where this one stops (PROTOCOL.md 12).

Small models know too little for people's exams; of a corpus there are thousands of such questions. The true continuation
stands among passages of the same document, of as many words, none of them from what was just read. Nobody but the text's own
order says which is right.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from cptjax.data.document import Document
from cptjax.errors import ConfigurationError
from cptjax.selection.shingles import word_begins

DISTRACTORS = 3
_ATTEMPTS = 8  # places tried for a question, and draws of its distractors at each
_LETTERS = 0.4  # of a passage's characters that are no white space, at least


@dataclasses.dataclass(frozen=True)
class ClozeSettings:
    """What generated questions are like. A word is what white space or, in scripts without it, a character makes one.

    Attributes:
        questions: how many; context, continuation: words that are given, and words of each choice; seed: of all choices.
    """

    questions: int = 2000
    context: int = 48
    continuation: int = 12
    seed: int = 0


def make_questions(
    read: Callable[[], Iterable[tuple[int, Document]]], settings: ClozeSettings
) -> Iterator[dict[str, object]]:
    """The questions, as an exam's lines hold them, in the order of the documents; the same for the same text and settings.

    As many documents as there are take part, and each as evenly as its length allows: questions of one document are not
    independent, and `document` says which they are.

    Args:
        read: gives the held-out documents with their ordinals; called twice.

    Raises:
        ConfigurationError: there is not enough text.
    """
    room = {ordinal: _room(len(word_begins(document.text)), settings) for ordinal, document in read()}
    spare = settings.questions // 20 + 8  # for places that turn out to have no distractors
    quotas = _quotas(room, settings.questions + spare, settings.seed)
    made: list[dict[str, object]] = []
    for ordinal, document in read():
        if quotas.get(ordinal):
            made += _of_document(ordinal, document, quotas[ordinal], settings)
    if len(made) < settings.questions:
        raise ConfigurationError(
            f"QUESTIONS = {settings.questions:,}, but the text is enough for {len(made):,} "
            f"({sum(value > 0 for value in room.values()):,} of its {len(room):,} documents are long enough for one).\n"
            "  Ask for fewer, make CONTEXT or CONTINUATION shorter, or hold out more."
        )
    kept = np.sort(np.random.default_rng([settings.seed, 1]).permutation(len(made))[: settings.questions])
    yield from (made[i] for i in kept)


def _room(words: int, settings: ClozeSettings) -> int:
    """How many questions a document of so many words gives: one at every quarter of a passage."""
    context, length = settings.context, settings.continuation
    # Behind a question's context and continuation, or before them, its distractors need their room.
    if words < context + (1 + DISTRACTORS) * length:
        return 0
    return 1 + (words - context - length) // max(1, length // 4)


def _quotas(room: dict[int, int], questions: int, seed: int) -> dict[int, int]:
    """Questions by document: as equal as the documents' room allows; all of it where that is too little.

    Of more documents than questions some are drawn.
    """
    able = np.array([ordinal for ordinal, each in room.items() if each], np.int64)
    drawn = np.random.default_rng([seed, 2]).permutation(able)[:questions].tolist()
    left, quotas = questions, {}
    # The smallest first: what they cannot give, the others do.
    for place, ordinal in enumerate(sorted(drawn, key=lambda ordinal: (room[ordinal], ordinal))):
        quotas[ordinal] = min(room[ordinal], -(-left // (len(drawn) - place)))
        left -= quotas[ordinal]
    return quotas


def _of_document(ordinal: int, document: Document, count: int, settings: ClozeSettings) -> Iterator[dict[str, object]]:
    """At most `count` questions of a document, at places spread over it."""
    random = np.random.default_rng([settings.seed, 0, ordinal])
    begins = [*word_begins(document.text), len(document.text)]
    first, last = settings.context, len(begins) - 1 - settings.continuation
    used: set[int] = set()
    for number in range(count):
        for _ in range(_ATTEMPTS):
            place = first + int((number + random.random()) * (last + 1 - first) / count)
            question = None if place in used else _question(document.text, begins, place, random, settings)
            if question is not None:
                used.add(place)
                yield {"id": f"{ordinal}/{place}", **question, "document": f"{ordinal}: {document.name}"}
                break


def _question(
    text: str, begins: Sequence[int], place: int, random: np.random.Generator, settings: ClozeSettings
) -> dict[str, object] | None:
    """The question whose continuation begins with word `place`; None where it has no distractors, or is hardly text."""
    length = settings.continuation

    def passage(first: int) -> str:
        return text[begins[first] : begins[first + length]].strip()

    right = passage(place)
    if not _is_text(right):
        return None
    free = np.arange(len(begins) - length)
    free = free[(free + length <= place - settings.context) | (free >= place + length)]
    drawn: list[int] = []
    choices = [right]
    for start in random.permutation(free)[: _ATTEMPTS * DISTRACTORS].tolist():
        apart = all(abs(start - other) >= length for other in drawn)
        other = passage(start)
        if apart and _is_text(other) and other.casefold() not in [choice.casefold() for choice in choices]:
            drawn.append(start)
            choices.append(other)
        if len(drawn) == DISTRACTORS:
            break
    else:
        return None
    before = text[begins[place - settings.context] : begins[place]]
    order = random.permutation(len(choices)).tolist()
    return {
        "question": before.rstrip(),
        "choices": [choices[i] for i in order],
        "answer": order.index(0),
        "separator": before[len(before.rstrip()) :],
    }


def _is_text(passage: str) -> bool:
    solid = [letter for letter in passage if not letter.isspace()]
    return bool(solid) and sum(map(str.isalnum, solid)) >= _LETTERS * len(solid)
