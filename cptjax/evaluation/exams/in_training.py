"""Exams that a run answers as it trains, at its evaluation points: few enough questions to be worth their time, always the same."""

import dataclasses
import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import Tokenizer
from cptjax.evaluation.exams.answers import ACCURACIES, CHANCE, MAJORITY, PRIOR, ExamSettings, answer_exam
from cptjax.evaluation.exams.examples import is_set_aside
from cptjax.evaluation.exams.questions import Exam, find_exams
from cptjax.evaluation.exams.rows import exam_rows
from cptjax.evaluation.own_samples import Model
from cptjax.evaluation.result_row import Measured

QUESTIONS = 256  # asked of each exam where nothing else is said: an accuracy of a half is then known to about 0.06


@dataclasses.dataclass(frozen=True)
class ExamsInTraining:
    """Which exams a run answers as it trains. It changes nothing of the training.

    Attributes:
        files: as EXAMS of the job `evaluate`; none: no exam is asked.
        questions: asked of each exam at most, drawn by the settings' seed; None: all of them.
        settings: how they are asked.
    """

    files: str | Sequence[str] = ()
    questions: float | None = QUESTIONS
    settings: ExamSettings = ExamSettings()

    def __post_init__(self):
        if self.questions is not None:
            object.__setattr__(self, "questions", whole_number(self.questions, "EXAM_QUESTIONS", minimum=1))

    def opened(self) -> list[Exam]:
        """The exams, with the questions that are asked in memory: what is asked does not change while the run goes on.

        Raises:
            ConfigurationError: as `find_exams`; an exam that cannot be asked in any of the forms.
        """
        exams = find_exams(self.files)
        for exam in exams:
            self.settings.forms_of(exam)
        return [drawn(exam, self.questions, self.settings) for exam in exams]

    def describe(self, exams: Sequence[Exam], steps: int) -> list[str]:
        """A line for each exam of a run that evaluates every `steps` steps."""
        of = "" if self.questions is None else f" of at most {self.questions:,}, drawn by SEED = {self.settings.seed}"
        return [
            f"exam      {exam.name}: every {steps:,} steps, {len(exam.kept):,} questions{of}; "
            f"{' and '.join(self.settings.forms_of(exam))} form"
            for exam in exams
        ]


def drawn(exam: Exam, most: int | None, settings: ExamSettings) -> Exam:
    """The same exam with at most so many of its scored questions, and those that its examples are drawn from, in memory.

    The questions whose seeded hashes are the smallest: the same wherever and whenever, and fewer are some of the same. The
    exam's majority letter stays that of all of its questions.
    """
    aside = settings.set_aside
    scored = (
        (place, question)
        for place, question in enumerate(exam.read())
        if not aside or not is_set_aside(question, aside)
    )
    if most is not None:
        scored = heapq.nsmallest(most, scored, key=lambda each: (_hash(settings.seed, each[1].id), each[0]))
    asked = {place for place, _ in scored}
    kept = tuple(
        question
        for place, question in enumerate(exam.read())
        if place in asked or settings.shots and is_set_aside(question, aside)
    )
    return dataclasses.replace(exam, kept=kept, questions=len(kept))


class AsTrained:
    """A run's exams, and the compiled functions that score them: the same questions each time, so nothing is compiled twice."""

    def __init__(self, exams: Sequence[Exam], settings: ExamSettings, tokenizer: Tokenizer, mesh: Mesh):
        self._exams, self._settings, self._tokenizer, self._mesh = exams, settings, tokenizer, mesh

    def rows(
        self, model: Model, found: Measured | None, between: Callable[[], None] = lambda: None
    ) -> list[dict[str, Any]]:
        """The rows of evaluation.jsonl for what `model` answers.

        Args:
            found: what they call it; None where there is no exam.
            between: called before each question; what it raises ends the exams.
        """

        def watch(items: Iterable[Any], total: int | None, what: str) -> Iterator[Any]:
            for item in items:
                between()
                yield item

        rows = []
        for exam in self._exams:
            answers = answer_exam(model, self._tokenizer, exam, self._settings, self._mesh, watch)
            rows += exam_rows(found, exam.name, answers, None, True, self._settings.seed, exam.sha256)
        return rows


@dataclasses.dataclass(frozen=True)
class AtStep:
    """What rows call the model of a run after so many steps; `tokens` since the run's base, by the lineage."""

    step: int
    tokens: int

    @property
    def label(self) -> str:
        return f"step {self.step}"


def as_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The numbers as they are logged: `exam/<name>/<metric>`."""
    return {f"exam/{row['subset']}/{row['metric']}": row["value"] for row in rows}


def as_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each exam and form its accuracy with its interval, beside the baselines, for people."""
    found = {(row["subset"], row["metric"]): row for row in rows}
    lines = []
    for exam in dict.fromkeys(row["subset"] for row in rows):
        for form, (accuracy, *_) in ACCURACIES.items():
            if (exam, accuracy) not in found:
                continue
            row = found[exam, accuracy]
            low, high = row["low"], row["high"]
            interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
            beside = {"chance": CHANCE, "the most frequent letter": MAJORITY, "without the question": f"{form}_{PRIOR}"}
            said = [
                f"{name} {found[exam, each]['value']:.3f}" for name, each in beside.items() if (exam, each) in found
            ]
            lines.append(f"exam {exam}, {form} form: {row['value']:.3f}{interval}; {', '.join(said)}")
    return lines


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} asked {name}".encode()).digest()
