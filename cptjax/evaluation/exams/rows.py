"""The rows of evaluation.jsonl that tell of an exam: accuracies beside their baselines, and the base's on the same questions."""

from typing import Any

import numpy as np

from cptjax.evaluation.bootstrap import Interval, paired_interval, ratio_interval
from cptjax.evaluation.exams.answers import (
    ACCURACIES,
    CHANCE,
    CONTAMINATED,
    MAJORITY,
    MARGIN,
    NATS,
    PRIOR,
    TOKENS,
    ExamAnswers,
)
from cptjax.evaluation.exams.paired import mcnemar, sign_flips, wilson
from cptjax.evaluation.result_row import Measured, result_row
from cptjax.evaluation.table import CHANGE, P_VALUE

EXAM = "exam"
PERPLEXITY = "perplexity"
# What varies in the intervals (PROTOCOL.md 10): not the seed, not the order of the data.
QUESTIONS = "questions (this checkpoint only)"
DOCUMENTS = "documents that questions are made of (this checkpoint only)"
CERTAIN = "nothing: it follows from the exam"
COUNTED = "nothing: questions that stand in its training text are counted"
_NONE: Interval = (None, None)


def exam_rows(
    found: Measured,
    exam: str,
    answers: ExamAnswers,
    base: ExamAnswers | None,
    same_tokens: bool,
    seed: int,
    sha256: str | None = None,
    suite: str = EXAM,
) -> list[dict[str, Any]]:
    """A row for each metric of each form, and for each baseline; where there is a base, for each change and its p-value.

    Args:
        base: the base's answers to the same questions; None for the base itself.
        same_tokens: whether both cut text into the same tokens; else perplexities and margins are not compared.
        sha256: of the exam, for each row to hold; None: not known.
        suite: what the rows are called.
    """
    rows: list[dict[str, Any]] = []
    for form, accuracies in ACCURACIES.items():
        if accuracies[0] not in answers.columns:
            continue
        for metric in (*accuracies, f"{form}_{MARGIN}", f"{form}_{PRIOR}"):
            if metric in answers.columns:
                rows.append(_mean_row(found, exam, metric, answers, seed))
        rows.append(_perplexity_row(found, exam, form, answers, seed))
        if base is None:
            continue
        for metric in accuracies:
            rows.append(_change_row(found, exam, metric, answers, base, seed))
            rows.append(_test_row(found, exam, metric, answers, base, seed))
        if same_tokens:
            rows.append(_change_row(found, exam, f"{form}_{MARGIN}", answers, base, seed))
            rows.append(_perplexity_change(found, exam, form, answers, base, seed))
    for metric in (CHANCE, MAJORITY):
        value = float(answers.columns[metric].mean())
        rows.append(result_row(found, EXAM, exam, metric, value, _NONE, CERTAIN, len(answers)))
    if CONTAMINATED in answers.columns and suite == EXAM:
        value = float(answers.columns[CONTAMINATED].sum())
        rows.append(result_row(found, EXAM, exam, CONTAMINATED, value, _NONE, COUNTED, len(answers)))
    return [{**row, "suite": suite, "sha256": sha256} for row in rows]


def _mean_row(found: Measured, exam: str, metric: str, answers: ExamAnswers, seed: int) -> dict[str, Any]:
    """A mean over questions. What is right or wrong, of questions that stand alone, has Wilson's interval."""
    column = answers.columns[metric]
    if answers.documents is None and np.isin(column, (0.0, 1.0)).all():
        interval: Interval = wilson(float(column.sum()), len(column))
    else:
        interval = ratio_interval(*_units(answers, column, np.ones_like(column)), seed)
    return result_row(found, EXAM, exam, metric, float(column.mean()), interval, _varies(answers), len(column))


def _perplexity_row(found: Measured, exam: str, form: str, answers: ExamAnswers, seed: int) -> dict[str, Any]:
    """exp of the correct answers' nats per token; in letter form that is of the correct letter (PAPERS.md 4.1)."""
    nats, tokens = (answers.columns[f"{form}_{name}"] for name in (NATS, TOKENS))
    low, high = ratio_interval(*_units(answers, nats, tokens), seed)
    interval = (None, None) if low is None else (float(np.exp(low)), float(np.exp(high)))
    value = float(np.exp(nats.sum() / tokens.sum()))
    return result_row(found, EXAM, exam, f"{form}_{PERPLEXITY}", value, interval, _varies(answers), len(answers))


def _change_row(
    found: Measured, exam: str, metric: str, answers: ExamAnswers, base: ExamAnswers, seed: int
) -> dict[str, Any]:
    mine, theirs = answers.columns[metric], base.columns[metric]
    each = np.ones_like(mine)
    interval = paired_interval(*_units(answers, mine, each), *_units(answers, theirs, each), seed)
    value = float(mine.mean()) - float(theirs.mean())
    return result_row(found, EXAM, exam, metric + CHANGE, value, interval, _varies(answers), len(answers))


def _perplexity_change(
    found: Measured, exam: str, form: str, answers: ExamAnswers, base: ExamAnswers, seed: int
) -> dict[str, Any]:
    mine, theirs = ([each.columns[f"{form}_{name}"] for name in (NATS, TOKENS)] for each in (answers, base))
    interval = paired_interval(*_units(answers, *mine), *_units(answers, *theirs), seed, of=np.exp)
    value = float(np.exp(mine[0].sum() / mine[1].sum()) - np.exp(theirs[0].sum() / theirs[1].sum()))
    metric = f"{form}_{PERPLEXITY}{CHANGE}"
    return result_row(found, EXAM, exam, metric, value, interval, _varies(answers), len(answers))


def _test_row(
    found: Measured, exam: str, metric: str, answers: ExamAnswers, base: ExamAnswers, seed: int
) -> dict[str, Any]:
    """The p-value of "both are equally good"; `n` is how many questions, or documents, they differ on."""
    mine, theirs = answers.columns[metric], base.columns[metric]
    if answers.documents is None:
        (value, differ), test = mcnemar(mine, theirs), "exact McNemar test over the n questions that differ"
    else:
        value, differ = sign_flips(mine, theirs, answers.documents, seed)
        test = "signs of the n documents that differ, drawn"
    return result_row(found, EXAM, exam, metric + P_VALUE, value, _NONE, test, differ)


def _units(answers: ExamAnswers, *columns: np.ndarray) -> list[np.ndarray]:
    """The columns by what is drawn: questions, or the documents that several are made of."""
    if answers.documents is None:
        return list(columns)
    return [np.bincount(answers.documents, weights=column) for column in columns]


def _varies(answers: ExamAnswers) -> str:
    return QUESTIONS if answers.documents is None else DOCUMENTS
