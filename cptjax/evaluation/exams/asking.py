"""Questions as token sequences: what is read first, and what is scored after it, cut where all of its choices still agree.

Where a context ends and a choice begins is a question of characters, and a tokenizer may join the last of one with the first
of the other. So context and choice are encoded together, as the model would meet them, and the cut is behind the last token
that the context alone and the context with every one of its choices have in common. Of all choices the same text is then
given, and all the rest of them is scored.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.examples import Examples, rotated
from cptjax.evaluation.exams.questions import Question
from cptjax.evaluation.exams.templates import Template

LETTER, CLOZE = "letter", "cloze"
FORMS = (LETTER, CLOZE)
_ENCODED_AT_ONCE = 64  # questions


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Texts of which each is scored after the same one."""

    context: str
    continuations: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Ask:
    """Tokens that are given, and of each choice those that are scored after them; `cut` says that the beginning was left out."""

    given: Sequence[int]
    scored: Sequence[Sequence[int]]
    cut: bool = False


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question and what is asked about it: first with the question, then without it.

    Letter form: for each rotation of its choices the score of each letter. Cloze form: the score of each choice, once.
    """

    question: Question
    asks: Sequence[Ask]


def prompts(
    question: Question, form: str, template: Template, examples: Examples | None, shots: int, prior: bool
) -> list[Prompt]:
    """What is asked about a question, as texts.

    Args:
        form: "letter": once for each cyclic rotation of the choices over the letters; "cloze": once.
        examples: drawn from where `shots` is above 0; they stand before the question, in the same form, and before the
            choices without their question as well.
        prior: also the same without the question.
    """
    drawn = examples.draw(question, shots) if shots else []
    if form == CLOZE:
        before = "".join(_cloze_example(example, template) for example in drawn)
        found = [Prompt(before + template.cloze_context(question), template.continuations(question))]
        if prior:
            context, continuations = template.alone(question)
            found.append(Prompt(before + context, continuations))
        return found
    before = "".join(_letter_example(question, example, template, examples) for example in drawn)
    letters = template.letters(len(question.choices))
    return [
        Prompt(before + template.letter_context(text, rotated(question.choices, by)), letters)
        for text in ([question.question, ""] if prior else [question.question])
        for by in range(len(question.choices))
    ]


def _cloze_example(example: Question, template: Template) -> str:
    right = template.continuations(example)[example.answer]
    return template.cloze_context(example) + right + template.between


def _letter_example(question: Question, example: Question, template: Template, examples: Examples) -> str:
    by = examples.rotation(question, example)
    letter = template.letters(len(example.choices))[(example.answer + by) % len(example.choices)]
    return template.letter_context(example.question, rotated(example.choices, by)) + letter + template.between


def ask(
    questions: Iterable[Question],
    form: str,
    template: Template,
    tokenizer: Tokenizer,
    longest: int,
    examples: Examples | None = None,
    shots: int = 0,
    prior: bool = True,
) -> Iterator[Asked]:
    """Each question with its tokens, in order; a few questions in memory at a time.

    Args:
        longest: positions that the model was made for. A longer context loses its beginning (but for BOS).

    Raises:
        ConfigurationError: a choice that alone is longer, a question that is given nothing to follow, or too few examples.
    """
    waiting: list[Question] = []
    for question in questions:
        waiting.append(question)
        if len(waiting) == _ENCODED_AT_ONCE:
            yield from _encoded(waiting, form, template, tokenizer, longest, examples, shots, prior)
            waiting = []
    yield from _encoded(waiting, form, template, tokenizer, longest, examples, shots, prior)


def _encoded(
    questions: Sequence[Question],
    form: str,
    template: Template,
    tokenizer: Tokenizer,
    longest: int,
    examples: Examples | None,
    shots: int,
    prior: bool,
) -> Iterator[Asked]:
    asked = [prompts(question, form, template, examples, shots, prior) for question in questions]
    texts = [
        text
        for each in asked
        for prompt in each
        for text in (prompt.context, *(prompt.context + continuation for continuation in prompt.continuations))
    ]
    encoded = iter(tokenizer.encode_batch(texts) if texts else [])
    for question, each in zip(questions, asked, strict=True):
        asks = []
        for prompt in each:
            context = next(encoded)
            wholes = [next(encoded) for _ in prompt.continuations]
            asks.append(_within(divided(context, wholes, tokenizer), longest, question, tokenizer.adds_bos))
        yield Asked(question, asks)


def divided(context: Sequence[int], wholes: Sequence[Sequence[int]], tokenizer: Tokenizer) -> Ask:
    """The tokens of a context and of the context with each continuation, cut behind what they all have in common.

    BOS comes first as the tokenizer adds it; where nothing else is given, what begins a document does.

    Raises:
        ConfigurationError: there is nothing to begin with.
    """
    shared = min(_in_common(context, whole) for whole in wholes)
    shared = min(shared, *(len(whole) - 1 for whole in wholes))  # of each something is scored
    given = ([tokenizer.bos] if tokenizer.adds_bos else []) + list(context[:shared])
    if not given:
        if tokenizer.start is None:
            raise ConfigurationError(
                f"a choice stands at the beginning of a text, and {tokenizer.name} has no token that begins one (BOS or EOS).\n"
                "  Set EXAM_PRIOR = False, or give the exam's template a context."
            )
        given = [tokenizer.start]
    return Ask(given, [list(whole[shared:]) for whole in wholes])


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))


def _within(asked: Ask, longest: int, question: Question, adds_bos: bool) -> Ask:
    """The same in at most `longest` positions."""
    room = longest - (max(map(len, asked.scored)) - 1)  # the last token scored is read by nobody
    if len(asked.given) <= room:
        return asked
    kept = int(adds_bos)
    if room <= kept:
        raise ConfigurationError(
            f"question {question.id!r} has a choice of {longest - room + 1:,} tokens; the model was made for {longest:,} positions."
        )
    return Ask([*asked.given[:kept], *asked.given[len(asked.given) - (room - kept) :]], asked.scored, cut=True)
