"""Examples before a question, drawn so that none gives its answer away (PROTOCOL.md 12)."""

import hashlib
import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from cptjax.data.splits import same_text
from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.questions import Exam, Question
from cptjax.selection.shingles import jaccard, word_shingles

SIMILAR = 0.5  # the Jaccard similarity of 5-word shingles from which two questions are alike
MOST = 256  # examples that are kept to draw from


def is_set_aside(question: Question, share: float) -> bool:
    """Whether a question is of the part that examples are drawn from, and that is never scored.

    A hash of the question's text decides, folded as near-duplicates are: the same question, also under another id or with
    other choices, is on the same side, and other questions, seeds or checkpoints move nothing.
    """
    return _hash(f"set aside {same_text(question.question)}") < share


class Examples:
    """What examples of an exam are drawn from: at most `MOST` of the questions that are set aside."""

    def __init__(self, questions: Iterable[Question], seed: int):
        """Keeps those of `questions` whose seeded hashes are the smallest."""
        self._questions = heapq.nsmallest(
            MOST, questions, lambda question: (_hash(f"{seed} {question.id}"), question.id)
        )
        self._texts = [same_text(question.question) for question in self._questions]
        self._shingles = [word_shingles(question.question) for question in self._questions]
        self._seed = seed

    def draw(self, question: Question, count: int) -> list[Question]:
        """`count` examples for one question: another draw for each, the same whatever else is asked.

        Neither the question itself nor one like it is drawn: the same text, or SIMILAR shingles.

        Raises:
            ConfigurationError: too few are left.
        """
        order = np.random.default_rng([self._seed, *_bytes(question.id)]).permutation(len(self._questions))
        text, shingles = same_text(question.question), word_shingles(question.question)
        drawn = []
        for i in order.tolist():
            if len(drawn) == count:
                break
            alike = self._questions[i].id == question.id or self._texts[i] == text
            if not alike and (len(shingles) or len(self._shingles[i])):
                alike = jaccard(shingles, self._shingles[i]) >= SIMILAR
            if not alike:
                drawn.append(self._questions[i])
        if len(drawn) < count:
            raise ConfigurationError(
                f"EXAM_SHOTS = {count}, but only {len(drawn)} questions are set aside that are not like {question.id!r}.\n"
                "  Raise EXAM_SET_ASIDE, or lower EXAM_SHOTS."
            )
        return drawn

    def rotation(self, question: Question, example: Question) -> int:
        """By how much the letters of an example are moved: any letter is as often right as another."""
        digits = _bytes(f"{question.id} {example.id}")
        return int(np.random.default_rng([self._seed, *digits]).integers(len(example.choices)))


def examples_of(exam: Exam, share: float, seed: int) -> Examples:
    """The examples of an exam: its own questions that are set aside."""
    return Examples((question for question in exam.read() if is_set_aside(question, share)), seed)


def rotated(choices: Sequence[str], by: int) -> list[str]:
    """The choices moved on by `by` letters: choice c stands at (c + by) modulo their number."""
    return [choices[(place - by) % len(choices)] for place in range(len(choices))]


def _bytes(text: str) -> list[int]:
    return list(hashlib.sha256(text.encode("utf-8")).digest()[:8])


def _hash(text: str) -> float:
    """Uniform in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little") / 2.0**64
