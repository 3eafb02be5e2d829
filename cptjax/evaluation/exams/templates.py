"""How a question is put to a model as text: format strings, checked when they are read and not when they are used."""

import dataclasses
import string
from collections.abc import Sequence

from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.questions import LETTERS, Question

# By field of `Template`: what may stand in braces, and what has to.
_PLACES = {
    "question": ({"question"}, {"question"}),
    "choice": ({"letter", "choice"}, {"letter", "choice"}),
    "answer": (set(), set()),
    "letter": ({"letter"}, {"letter"}),
    "context": ({"question"}, {"question"}),
    "continuation": ({"choice"}, {"choice"}),
    "without_question": (set(), set()),
    "between": (set(), set()),
}


@dataclasses.dataclass(frozen=True)
class Template:
    """The texts around a question, as format strings. White space around a question and its choices is taken off first.

    Attributes:
        question, choice, answer: the letter form is `question`, a line `choice` for each choice, then `answer`;
        letter: is what it is answered with, and scored.
        context, continuation: the cloze form: after `context` each choice is scored as `continuation`.
        without_question: what a choice stands after where it is scored without its question (the answer prior; Brown et
            al., arXiv 2005.14165, section 2.4, use "Answer: ").
        between: stands between examples, and before the question that is asked.
    """

    question: str = "{question}\n"
    choice: str = "{letter}. {choice}\n"
    answer: str = "Answer:"
    letter: str = " {letter}"
    context: str = "{question}"
    continuation: str = " {choice}"
    without_question: str = "Answer:"
    between: str = "\n\n"

    def __post_init__(self) -> None:
        for name, (allowed, needed) in _PLACES.items():
            _check(name, getattr(self, name), allowed, needed)
        if not self.answer:
            raise ConfigurationError("the exam template's answer is empty: a letter has to follow something.")

    def letter_context(self, question: str, choices: Sequence[str]) -> str:
        """The question with its choices in this order; an empty question leaves the choices alone."""
        asked = self.question.format(question=question.strip()) if question else ""
        listed = (
            self.choice.format(letter=letter, choice=choice.strip())
            for letter, choice in zip(LETTERS, choices, strict=False)
        )
        return asked + "".join(listed) + self.answer

    def letters(self, count: int) -> list[str]:
        """What the letter form is answered with, for the first `count` letters."""
        return [self.letter.format(letter=letter) for letter in LETTERS[:count]]

    def cloze_context(self, question: Question) -> str:
        """What each choice of the cloze form follows."""
        if question.separator is not None:
            return question.question
        return self.context.format(question=question.question.strip())

    def continuations(self, question: Question) -> list[str]:
        """Each choice of the cloze form, as it follows `cloze_context`."""
        if question.separator is not None:
            return [question.separator + choice for choice in question.choices]
        return [self.continuation.format(choice=choice.strip()) for choice in question.choices]

    def alone(self, question: Question) -> tuple[str, list[str]]:
        """The same choices without their question: what they follow, and each."""
        if question.separator is not None:  # as the beginning of a text
            return "", list(question.choices)
        return self.without_question, self.continuations(question)


def _check(name: str, value: object, allowed: set[str], needed: set[str]) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"the exam template's {name} is {value!r}; it is a text.")
    try:
        parsed = list(string.Formatter().parse(value))
    except ValueError as error:
        raise ConfigurationError(f"the exam template's {name} is {value!r}: {error}.") from None
    found = {field for _, field, _, _ in parsed if field is not None}
    plain = all(not form and conversion is None for _, field, form, conversion in parsed if field is not None)
    if not needed <= found <= allowed or not plain:
        places = " and ".join(f"{{{each}}}" for each in sorted(needed)) or "nothing in braces"
        raise ConfigurationError(
            f"the exam template's {name} is {value!r}; it has to hold {places}, and nothing else in braces.\n"
            "  A brace itself is written twice: {{ or }}."
        )
