"""Questions that stand in training text: found in a real run's rows, counted, and left out of a second set of rows."""

import json

import numpy as np
import pytest

from cptjax.checkpoints.source import open_checkpoint
from cptjax.data.prepare import ensure_rows
from cptjax.data.tokenizer import open_tokenizer
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.exams import contamination
from cptjax.evaluation.exams.answers import CONTAMINATED, ExamAnswers
from cptjax.evaluation.exams.contamination import Contamination, clean_questions
from cptjax.evaluation.exams.questions import open_exam
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.results import result_rows
from cptjax.evaluation.table import results_table
from cptjax.reporting.comparison import compare_evaluated
from cptjax.reporting.exams import exams_table
from cptjax.watching import unwatched

LEAKED = "One day a small red bird flew over the old stone bridge and sang to everyone below"  # 17 words


@pytest.fixture(scope="module")
def rows(shared_data, tmp_path_factory):
    """The packed rows of a text that holds the second question of three with its answer, and their exam."""
    folder = tmp_path_factory.mktemp("leak")
    texts = [f"Once upon a time {i} there was a girl who had many toys and a dog." for i in range(40)]
    texts[7] = f"{texts[7]}  {LEAKED}. {texts[8]}"
    corpus = folder / "text.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    questions = ["What is a " + " ".join(f"w{i}" for i in range(20)), LEAKED[:60], "Short"]
    exam = folder / "exam.jsonl"
    lines = [
        {"id": i, "question": question, "choices": [LEAKED[61:], "no"], "answer": 0}
        for i, question in enumerate(questions)
    ]
    exam.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = ensure_rows(
        {"text": str(corpus)}, str(shared_data / "stories260K"), 64, str(folder / "rows"), validation_fraction=0
    )
    return made["text"], open_exam(str(exam)), folder


def test_a_question_in_the_training_rows_is_found_once_and_kept(rows, shared_data, monkeypatch):
    source, exam, folder = rows
    opened = open_checkpoint(shared_data / "stories260K")
    one = Compared("run", opened, open_tokenizer(str(opened.model_folder)))
    said = []
    looked = Contamination([exam], 0.0, folder, said.append, unwatched)
    assert looked.of(one, True) == (None, [])  # of a Hugging Face folder nobody knows

    # What the lineage's folders tell is tested with held_out.py; here it names the rows.
    there = [(source.train, source.info.fingerprint, "text"), (None, "gone", "other")]
    monkeypatch.setattr(contamination, "trained_folders", lambda one: iter(there))
    run = Compared("run", _Ours(opened), one.tokenizer)
    answers = {"exam": ExamAnswers({"cloze_accuracy": np.ones(3)}, None, 0)}
    marked, unknown = looked.mark(run, answers, True)
    assert CONTAMINATED not in marked["exam"].columns  # which would say that the third question stands nowhere
    assert unknown == ["run: exam questions could not be looked for in 'other': its rows are gone"]
    del there[1]
    marked, unknown = looked.mark(run, answers, True)
    assert marked["exam"].columns[CONTAMINATED].tolist() == [0, 1, 0] and unknown == []
    again = Contamination([exam], 0.0, folder, said.append, unwatched)
    assert again.of(run, False)[0]["exam"].tolist() == [False, True, False]
    assert len([line for line in said if line.startswith("looking")]) == 1  # what was found is kept


class _Ours:
    """The opened checkpoint, as one of our runs."""

    def __init__(self, opened):
        self._opened, self.store = opened, object()

    def __getattr__(self, name):
        return getattr(self._opened, name)


def test_accuracy_is_reported_with_and_without_contaminated_questions():
    """By hand: the run is right about the two leaked questions, and about one of the other four."""

    def measured(label, right, leaked):
        columns = {
            "cloze_accuracy": np.array(right, float),
            "chance": np.full(6, 0.5),
            "majority_letter": np.full(6, 0.5),
        }
        columns |= {f"cloze_accuracy_per_{each}": columns["cloze_accuracy"] for each in ("character", "byte")}
        columns |= {f"cloze_{each}": np.ones(6) for each in ("nats", "tokens", "margin")}
        columns |= {CONTAMINATED: np.array(leaked, float)} if leaked else {}
        answers = {"law": ExamAnswers(columns, np.array([0, 0, 1, 1, 2, 3]), 0)}
        return Measurement(label, "/it", None, None, label, "t", {}, {}, None, None, answers)

    base = measured("base", [0, 1, 0, 1, 0, 1], None)
    run = measured("run", [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0])
    rows = result_rows([base, run], base, 0, exams={"law": "ab" * 32})
    found = {(row["checkpoint"], row["suite"], row["metric"]): row for row in rows}
    assert found["run", "exam", "contaminated"]["value"] == 2 and ("base", "exam", "contaminated") not in found
    assert found["run", "exam", "cloze_accuracy"]["value"] == 0.5
    assert found["run", "exam_clean", "cloze_accuracy"]["value"] == 0.25
    assert found["base", "exam_clean", "cloze_accuracy"]["value"] == 0.5  # the same four questions
    assert found["run", "exam_clean", "cloze_accuracy_change"]["value"] == -0.25
    assert {row["n"] for key, row in found.items() if key[1] == "exam_clean" and not key[2].endswith("_p")} == {4}
    assert {row["sha256"] for row in rows} == {"ab" * 32}
    lines = results_table(rows)
    assert any(line.startswith("exam law, clean") for line in lines) and any(
        line.rstrip().endswith(" 2") for line in lines
    )
    table = exams_table(compare_evaluated(rows, "base"))
    cells = [[cell.text for cell in row] for row in table.rows]
    assert ["", "in training text", "–", "2", "–"] in cells
    assert any(row[0] == "law, without what is in training text" for row in cells)
    nothing = [measured("base", [1] * 6, None), measured("run", [1] * 6, [0] * 6)]
    assert not [row for row in result_rows(nothing, nothing[0], 0) if row["suite"] == "exam_clean"]
    assert clean_questions([{CONTAMINATED: np.ones(3)}], CONTAMINATED) is None  # none is clean
