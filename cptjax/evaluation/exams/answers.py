"""What a model makes of each question of an exam, as numbers to be averaged over questions."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.asking import CLOZE, FORMS, LETTER, Ask, ask
from cptjax.evaluation.exams.examples import examples_of, is_set_aside
from cptjax.evaluation.exams.questions import Exam, Question
from cptjax.evaluation.exams.scoring import score_asks
from cptjax.evaluation.exams.templates import Template
from cptjax.evaluation.own_samples import Model
from cptjax.watching import Watch, unwatched

CHANCE, MAJORITY = "chance", "majority_letter"
CONTAMINATED = "contaminated"  # 1 where the question stands in the training text of the checkpoint, where that is known
# Of each form: what is right or wrong, what the correct answer cost, how far it is ahead, and the answer prior.
ACCURACIES = {
    LETTER: ("letter_accuracy", "letter_accuracy_as_written"),
    CLOZE: ("cloze_accuracy", "cloze_accuracy_per_character", "cloze_accuracy_per_byte"),
}
NATS, TOKENS, MARGIN, PRIOR = "nats", "tokens", "margin", "answer_prior"
SET_ASIDE = 0.1  # of an exam, where examples are wanted and nothing else is said


@dataclasses.dataclass(frozen=True)
class ExamSettings:
    """How exams are asked.

    Attributes:
        forms: "letter", "cloze", or both. Exams whose choices go on with the question have the cloze form alone.
        shots: examples before each question. seed: of their choice.
        set_aside: the share of questions that examples are drawn from and that are not scored; None: SET_ASIDE where there
            are shots, else nothing.
        prior: also score the choices without their question, which takes as long again.
        template: the texts around the questions.
    """

    forms: Sequence[str] = FORMS
    shots: float = 0
    set_aside: float | None = None
    seed: float = 0
    prior: bool = True
    template: Template = Template()

    def __post_init__(self) -> None:
        forms = (self.forms,) if isinstance(self.forms, str) else tuple(self.forms)
        if not forms or not set(forms) <= set(FORMS) or len(set(forms)) < len(forms):
            raise ConfigurationError(f"EXAM_FORMS = {self.forms!r}; it holds 'letter', 'cloze', or both.")
        object.__setattr__(self, "forms", forms)
        object.__setattr__(self, "shots", whole_number(self.shots, "EXAM_SHOTS"))
        object.__setattr__(self, "seed", whole_number(self.seed, "SEED"))
        share = self.set_aside
        if share is None:
            share = SET_ASIDE if self.shots else 0.0
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ConfigurationError(f"EXAM_SET_ASIDE = {share!r}; it is a share of the questions, below 1.")
        if self.shots and not share:
            raise ConfigurationError(
                f"EXAM_SHOTS = {self.shots}, but EXAM_SET_ASIDE = 0: there is nothing to draw examples from."
            )
        object.__setattr__(self, "set_aside", float(share))
        if not isinstance(self.template, Template):
            raise ConfigurationError(f"an exam's template is {self.template!r}; it is a @templates.Template().")

    def forms_of(self, exam: Exam) -> tuple[str, ...]:
        """The forms in which an exam is asked.

        Raises:
            ConfigurationError: none is left.
        """
        forms = tuple(form for form in self.forms if form == CLOZE or not exam.continues)
        if not forms:
            raise ConfigurationError(
                f"EXAM_FORMS = {list(self.forms)}, but the choices of {exam.file} go on with its questions: ask it as 'cloze'."
            )
        return forms


@dataclasses.dataclass(frozen=True)
class ExamAnswers:
    """By question, in the exam's order, what a model made of it.

    Attributes:
        columns: by name float64 [questions]: `chance`, `majority_letter`, and for each form what `results.py` averages.
        documents: what each question was made of, as numbers; None where all stand alone.
        cut: prompts that were longer than the model was made for, and lost their beginning.
    """

    columns: Mapping[str, np.ndarray]
    documents: np.ndarray | None
    cut: int

    def __len__(self) -> int:
        return len(self.columns[CHANCE])

    def take(self, kept: np.ndarray) -> "ExamAnswers":
        """The answers to the questions that are `kept` (bool, [questions])."""
        columns = {name: column[kept] for name, column in self.columns.items()}
        documents = None if self.documents is None else np.unique(self.documents[kept], return_inverse=True)[1]
        return ExamAnswers(columns, documents, self.cut)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "ExamAnswers":
        """The answers of `dataclasses.asdict`, arrays as lists."""
        documents = found["documents"]
        columns = {name: np.array(column, np.float64) for name, column in found["columns"].items()}
        return cls(columns, None if documents is None else np.array(documents, np.int64), found["cut"])


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What is kept of a question while it is scored."""

    answer: int
    same: tuple[int, ...]  # of each choice the first with the same text
    characters: np.ndarray
    bytes: np.ndarray
    tokens: tuple[tuple[int, ...], ...]  # by ask, of each continuation


def answer_exam(
    model: Model, tokenizer: Tokenizer, exam: Exam, settings: ExamSettings, mesh: Mesh, watch: Watch = unwatched
) -> ExamAnswers:
    """Asks every question that is not set aside, in each form.

    Kept in memory are some numbers for each question; their texts and tokens are read as they are needed.

    Raises:
        ConfigurationError: as `asking.ask`, or every question is set aside.
    """
    share = settings.set_aside
    total = sum(1 for _ in scored_questions(exam, share)) if share else exam.questions
    if not total:
        raise ConfigurationError(f"EXAM_SET_ASIDE = {share}: no question of {exam.file} is left to be scored.")
    examples = examples_of(exam, share, settings.seed) if settings.shots else None
    columns: dict[str, np.ndarray] = {}
    cut = 0
    for form in settings.forms_of(exam):
        facts: list[_Facts] = []
        asked = ask(
            scored_questions(exam, share),
            form,
            settings.template,
            tokenizer,
            model.config.maximum_length,
            examples,
            settings.shots,
            settings.prior,
        )

        def asks(asked=asked, facts=facts, form=form) -> Iterator[Ask]:
            nonlocal cut
            for each in watch(asked, total, f"{exam.name}, {form} form, questions"):
                facts.append(_facts(each.question, each.asks))
                cut += sum(one.cut for one in each.asks)
                yield from each.asks

        scored = dict(score_asks(model.params, model.config, model.numerics, mesh, asks()))
        columns |= _columns(form, facts, [scored[number] for number in range(len(scored))], settings.prior)
    questions = [(len(q.choices), q.answer, q.document) for q in scored_questions(exam, share)]
    columns[CHANCE] = np.array([1 / choices for choices, _, _ in questions])
    columns[MAJORITY] = np.array([float(answer == exam.majority) for _, answer, _ in questions])
    return ExamAnswers(columns, numbered([document for *_, document in questions]), cut)


def numbered(documents: Sequence[str | None]) -> np.ndarray | None:
    """What each question was made of, as numbers; one that was made of nothing has a number of its own. None: all of them."""
    if not any(document is not None for document in documents):
        return None
    names = [place if document is None else document for place, document in enumerate(documents)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def credit(scores: np.ndarray, answer: int) -> float:
    """1 where the answer has the highest score, 0 where it has not, or where one is no number; shared where several have it."""
    if np.isnan(scores).any():
        return 0.0
    best = scores == scores.max()
    return float(best[answer]) / float(best.sum())


def scored_questions(exam: Exam, share: float) -> Iterator[Question]:
    """The questions of an exam that are not set aside for examples."""
    return (question for question in exam.read() if not share or not is_set_aside(question, share))


def _facts(question: Question, asks: Sequence[Ask]) -> _Facts:
    choices = [choice.strip() for choice in question.choices]
    return _Facts(
        question.answer,
        tuple(choices.index(choice) for choice in choices),
        np.array([len(choice) for choice in choices], np.float64),
        np.array([len(choice.encode("utf-8")) for choice in choices], np.float64),
        tuple(tuple(map(len, one.scored)) for one in asks),
    )


def _columns(form: str, facts: Sequence[_Facts], nats: Sequence[np.ndarray], prior: bool) -> dict[str, np.ndarray]:
    rows, at = [], 0
    for fact in facts:
        mine = nats[at : at + len(fact.tokens)]
        at += len(fact.tokens)
        rows.append(_letter_row(fact, mine, prior) if form == LETTER else _cloze_row(fact, mine, prior))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _cloze_row(fact: _Facts, nats: Sequence[np.ndarray], prior: bool) -> dict[str, float]:
    """The numbers of a question whose choices were scored as they stand."""
    scores = -nats[0][list(fact.same)]  # the same text has the same score, to the last bit
    row = {
        "cloze_accuracy": credit(scores, fact.answer),
        "cloze_accuracy_per_character": credit(scores / fact.characters, fact.answer),
        "cloze_accuracy_per_byte": credit(scores / fact.bytes, fact.answer),
        f"cloze_{NATS}": -float(scores[fact.answer]),
        f"cloze_{TOKENS}": float(fact.tokens[0][fact.answer]),
        f"cloze_{MARGIN}": _margin(scores, fact.answer),
    }
    return row | ({f"cloze_{PRIOR}": credit(-nats[1][list(fact.same)], fact.answer)} if prior else {})


def _letter_row(fact: _Facts, nats: Sequence[np.ndarray], prior: bool) -> dict[str, float]:
    """The numbers of a question that was asked under every rotation: means over the rotations.

    Under rotation r the letter of choice c is c + r: a model that always says the same letter is right once in all.
    """
    count = len(fact.same)
    right = [(fact.answer + by) % count for by in range(count)]
    asked = list(zip(nats[:count], right, strict=True))
    row = {
        "letter_accuracy": float(np.mean([credit(-each, place) for each, place in asked])),
        "letter_accuracy_as_written": credit(-nats[0], fact.answer),
        f"letter_{NATS}": float(sum(each[place] for each, place in asked)),
        f"letter_{TOKENS}": float(count),  # a letter counts as one, also where a tokenizer makes it of two
        f"letter_{MARGIN}": float(np.mean([_margin(-each, place) for each, place in asked])),
    }
    if prior:
        alone = zip(nats[count:], right, strict=True)
        row[f"letter_{PRIOR}"] = float(np.mean([credit(-each, place) for each, place in alone]))
    return row


def _margin(scores: np.ndarray, answer: int) -> float:
    """How far the right answer's log-probability is above the best of the others, nats."""
    return float(scores[answer] - np.delete(scores, answer).max())
