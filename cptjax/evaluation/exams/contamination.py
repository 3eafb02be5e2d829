"""Exam questions that stand in what a checkpoint was trained on: 13 words, or 30 characters, in common (PROTOCOL.md 7).

The text is read from the packed rows of the training split of every source that the run, or one that it started from, reads
from: what it trained on, or would have come to. Of a Hugging Face folder nothing is known.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from etils import epath

from cptjax.data.contamination import Exams, runs_of_items
from cptjax.data.pieces import all_pieces, documents, text_of
from cptjax.data.rows import RowReader
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import CptjaxError
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.exams.answers import CONTAMINATED, ExamAnswers, scored_questions
from cptjax.evaluation.exams.questions import Exam, Question
from cptjax.evaluation.held_out import trained_folders
from cptjax.files import read_json, write_file
from cptjax.watching import Watch

FOLDER = "contamination"  # of an evaluation: what was found in which rows
Found = Mapping[str, np.ndarray]  # by exam, bool: of each scored question


class Contamination:
    """Looks for exams' questions in training text; each folder of rows is read once, and what was found is kept."""

    def __init__(
        self, exams: Sequence[Exam], set_aside: float, folder: epath.Path, say: Callable[[str], None], watch: Watch
    ):
        """`folder`: of the evaluation; `set_aside`: the share of questions that are not scored."""
        self._exams, self._share = exams, set_aside
        self._folder, self._say, self._watch = folder / FOLDER, say, watch
        self._runs: Exams | None = None
        self._known: dict[str, Found] = {}

    def of(self, one: Compared, write: bool) -> tuple[dict[str, np.ndarray] | None, list[str]]:
        """By exam which scored questions stand in what the checkpoint was trained on, and a sentence for each source that
        could not be read. None: not all of what it was trained on is known.

        Args:
            write: keep what was found (the first process alone does).
        """
        if one.opened.store is None:
            return None, []
        found: dict[str, np.ndarray] = {}
        unknown = []
        for rows, fingerprint, name in trained_folders(one):
            try:
                hits = self._in_rows(rows, fingerprint, name, one.tokenizer, write)
            except (CptjaxError, OSError) as error:
                unknown.append(
                    f"{one.label}: exam questions could not be looked for in {name!r}: {str(error).splitlines()[0]}"
                )
                continue
            for exam, hit in hits.items():
                found[exam] = found.get(exam, np.zeros(len(hit), bool)) | hit
        return None if unknown else found or None, unknown

    def mark(
        self, one: Compared, answers: Mapping[str, ExamAnswers], write: bool
    ) -> tuple[dict[str, ExamAnswers], list[str]]:
        """The checkpoint's answers by exam, with the column that says which questions stand in what it was trained on where
        all of that is known; and `of`'s sentences."""
        found, unknown = self.of(one, write) if answers else (None, [])
        columns = {
            name: {**answers[name].columns, CONTAMINATED: hit.astype(float)} for name, hit in (found or {}).items()
        }
        return {**answers, **{name: replace(answers[name], columns=each) for name, each in columns.items()}}, unknown

    def _in_rows(self, rows: str | None, fingerprint: str, name: str, tokenizer: Tokenizer, write: bool) -> Found:
        if fingerprint in self._known:
            return self._known[fingerprint]
        identity = {"set_aside": self._share, "exams": {exam.name: exam.sha256 for exam in self._exams}}
        path = self._folder / f"{fingerprint}.json"
        kept = read_json(path) if path.exists() else {}
        if kept.get("of") == identity:
            places = kept["found"]
        else:
            places = self._search(rows, fingerprint, name, tokenizer)
            if write:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_file(path, json.dumps({"of": identity, "questions": self._counts(), "found": places}) + "\n")
        found = {}
        for exam, count in self._counts().items():
            found[exam] = np.zeros(count, bool)
            found[exam][places[exam]] = True
        self._known[fingerprint] = found
        return found

    def _counts(self) -> dict[str, int]:
        if self._runs is None:
            self._runs = runs_of_items({exam.name: self._texts(exam) for exam in self._exams})
        return dict(self._runs.items)

    def _texts(self, exam: Exam) -> Iterator[list[str]]:
        return (texts_of(question) for question in scored_questions(exam, self._share))

    def _search(self, rows: str | None, fingerprint: str, name: str, tokenizer: Tokenizer) -> dict[str, list[int]]:
        """By exam the places of the questions that the rows' text holds."""
        if rows is None:
            raise CptjaxError("its rows are gone")
        counts = self._counts()
        reader = RowReader(rows)
        if (reader.manifest.fingerprint, reader.manifest.tokenizer["fingerprint"]) != (
            fingerprint,
            tokenizer.fingerprint,
        ):
            raise CptjaxError(f"{rows} holds other rows now")
        self._say(f"looking for exam questions in what {name} trains on: {reader.manifest.documents:,} documents")
        items: set[int] = set()
        each = documents(reader, all_pieces(reader))
        for _, tokens in self._watch(each, reader.manifest.documents, f"{name}, documents"):
            items.update(self._runs.found_in(text_of(tokens, reader, tokenizer)).tolist())
        found, begin = {}, 0
        for exam, count in counts.items():
            found[exam] = sorted(item - begin for item in items if begin <= item < begin + count)
            begin += count
        return found


def texts_of(question: Question) -> list[str]:
    """What a question's runs are taken from: its text with each of its choices, as they stand behind it."""
    between = " " if question.separator is None else question.separator
    return [f"{question.question}{between}{choice}" for choice in question.choices]


def clean_questions(columns: Sequence[Mapping[str, np.ndarray]], name: str) -> np.ndarray | None:
    """bool by question: in no checkpoint's training text. None where all of them are clean, or none is.

    Args:
        columns: of each checkpoint's answers; `name`: of the column that says which stand in its training text.
    """
    marked = [each[name] > 0 for each in columns if name in each]
    if not marked:
        return None
    clean = ~np.any(marked, axis=0)
    return None if clean.all() or not clean.any() else clean
