"""Exams as JSON lines of multiple-choice questions, or as SeqIO tasks of them: each is checked before any is asked."""

import dataclasses
import glob
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from cptjax.configuration.values import flat
from cptjax.data.readers import LINES, file_records
from cptjax.data.text_digests import file_digest
from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.seqio_tasks import SEQIO, task_examples, task_name

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FEWEST = 2  # choices of a question


@dataclasses.dataclass(frozen=True)
class Question:
    """One item of an exam.

    Attributes:
        id: of its own in the exam.
        question, choices, answer: the text, its choices in the file's order, and the index of the right one.
        document: what the item was made of, where several are made of one: they are then not independent; None: it stands
            alone.
        separator: what stands between question and choice where each choice goes on with the question (a generated cloze
            item): it is then asked as it stands, without a template. None: an ordinary question.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    document: str | None = None
    separator: str | None = None


@dataclasses.dataclass(frozen=True)
class Exam:
    """An exam that was read through once and found well formed.

    Attributes:
        name: the file's name up to its first ending, or the task's; file: where it is, or "seqio:task#split".
        sha256: of the file's content, or over a task's questions.
        questions: how many there are; most_choices: of one of them.
        answers: how often each index is the right one.
        continues: whether its choices go on with the questions (`Question.separator`); such an exam has no letter form.
        kept: the questions, where they are held in memory and not read anew.
    """

    name: str
    file: str
    sha256: str
    questions: int
    most_choices: int
    answers: Mapping[int, int]
    continues: bool
    kept: tuple[Question, ...] | None = dataclasses.field(default=None, repr=False)

    @property
    def majority(self) -> int:
        """The index that is most often right; the first of those that are so equally often."""
        return min(self.answers, key=lambda index: (-self.answers[index], index))

    def read(self) -> Iterator[Question]:
        """The questions in the file's order, one at a time.

        Raises:
            ConfigurationError: as `open_exam`.
        """
        return read_questions(self.file) if self.kept is None else iter(self.kept)


def find_exams(where: str | Sequence[Any] | None) -> list[Exam]:
    """The exams of EXAMS: a path, a glob, a SeqIO task ("seqio:name", "#split" may follow), or a list of them; each is read
    through and checked. A list may hold lists, and None where a macro names no exam.

    Raises:
        ConfigurationError: nothing there, a file of another kind, two of one name, or a malformed question.
    """
    files: list[str] = []
    for item in flat(where):
        if not isinstance(item, str) or not item:
            raise ConfigurationError(f"EXAMS holds {item!r}; it is a path, a glob, or a list of these.")
        if item.startswith(SEQIO):
            files.append(item)
            continue
        path = epath.Path(item).expanduser()
        found = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise ConfigurationError(
                f"EXAMS: there is no file {item}.\n  Each is a JSONL file, a glob of them, or a SeqIO task, 'seqio:name'."
            )
        for file in found:
            if not file.endswith(LINES) or epath.Path(file).is_dir():
                raise ConfigurationError(f"EXAMS: {file} is no JSONL file ({', '.join(LINES)}).")
        files += found
    exams = [open_exam(file) for file in dict.fromkeys(files)]
    twice = [name for name, times in Counter(exam.name for exam in exams).items() if times > 1]
    if twice:
        both = " and ".join(exam.file for exam in exams if exam.name == twice[0])
        raise ConfigurationError(f"EXAMS: {both} would both be called {twice[0]!r}; give one of them another name.")
    return exams


def open_exam(file: str) -> Exam:
    """Reads a file, or a task, through. What is kept of it does not grow with the questions' texts.

    Raises:
        ConfigurationError: a malformed question, by file and line, or a file without any.
    """
    answers: Counter[int] = Counter()
    most, continues, digest = 0, set(), hashlib.sha256()
    for question in read_questions(file):
        digest.update(json.dumps(dataclasses.asdict(question), sort_keys=True).encode())
        answers[question.answer] += 1
        most = max(most, len(question.choices))
        continues.add(question.separator is not None)
    if not answers:
        raise ConfigurationError(f"{file} has no questions.")
    if len(continues) > 1:
        raise ConfigurationError(
            f'{file}: some of its questions have a "separator", and some have none. All have one, or none has.'
        )
    if file.startswith(SEQIO):
        name, sha256 = task_name(file), digest.hexdigest()
    else:
        name, sha256 = epath.Path(file).name, file_digest(file)
        for ending in sorted(LINES, key=len, reverse=True):
            name = name.removesuffix(ending)
    return Exam(name, file, sha256, answers.total(), most, dict(answers), continues.pop())


def read_questions(file: str) -> Iterator[Question]:
    """The questions of a JSONL file, each line checked; or of a SeqIO task, each example.

    Raises:
        ConfigurationError: a line or an example that is no question: its number, what is wrong with it, and what it should be;
            a task that is not registered or has no such split.
        CptjaxError: a damaged file.
    """
    seen: dict[bytes, str] = {}
    for where, fields in task_examples(file) if file.startswith(SEQIO) else _lines(file):
        question = _question(fields, where)
        key = hashlib.blake2b(question.id.encode("utf-8"), digest_size=16).digest()
        if key in seen:
            raise ConfigurationError(
                f"{where}: the id {question.id!r} is that of {seen[key].rpartition(', ')[2]} too.\n"
                "  Each question has an id of its own."
            )
        seen[key] = where
        yield question


def _lines(file: str) -> Iterator[tuple[str, Any]]:
    """Where each line of a file is, and what it holds."""
    for record in file_records(file, file):
        try:
            yield record.where, json.loads(record.content.decode("utf-8"))
        except ValueError as error:
            raise ConfigurationError(f"{record.where} is not JSON in UTF-8: {error}.") from None


def _question(fields: Any, where: str) -> Question:
    if not isinstance(fields, dict):
        raise ConfigurationError(
            f'{where} is no question: a line is {{"id": ..., "question": ..., "choices": [...], "answer": 0}}.'
        )
    if missing := [name for name in ("id", "question", "choices", "answer") if name not in fields]:
        raise ConfigurationError(f"{where}: the question has no {' and no '.join(map(repr, missing))}.")
    name = fields["id"]
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise ConfigurationError(f"{where}: its id is {name!r}; it is a text or a number.")
    text = _text(fields["question"], "question", where)
    choices = fields["choices"]
    if not isinstance(choices, list) or not FEWEST <= len(choices) <= len(LETTERS):
        many = f"{len(choices)} of them" if isinstance(choices, list) else type(choices).__name__
        raise ConfigurationError(
            f"{where}: its choices are {many}; they are a list of {FEWEST} to {len(LETTERS)} texts."
        )
    choices = tuple(_text(choice, f"choice {i} (counted from 0)", where) for i, choice in enumerate(choices))
    answer = fields["answer"]
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ConfigurationError(
            f"{where}: its answer is {answer!r}; it is the index of the right choice, from 0 to {len(choices) - 1}."
        )
    for optional in ("document", "separator"):
        if fields.get(optional) is not None and not isinstance(fields[optional], str):
            raise ConfigurationError(
                f"{where}: its {optional} is {fields[optional]!r}; where there is one, it is a text."
            )
    return Question(str(name), text, choices, answer, fields.get("document"), fields.get("separator"))


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{where}: its {what} is {value!r}; it is a text, and not an empty one.")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in value):
        raise ConfigurationError(f"{where}: its {what} holds half of a surrogate pair, which is not Unicode text.")
    return value
