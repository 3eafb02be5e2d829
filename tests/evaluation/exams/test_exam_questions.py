"""Exam files: what is read, and what is refused, by file and line."""

import json

import pytest

from cptjax.errors import ConfigurationError
from cptjax.evaluation.exams.questions import find_exams, open_exam

GOOD = {"id": "one", "question": "Which?", "choices": ["this", "that", "neither"], "answer": 2}


def write(folder, *lines, name="exam.jsonl"):
    path = folder / name
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return str(path)


def test_the_exams_beside_the_project_are_read(shared_data):
    exams = {exam.name: exam for exam in find_exams(str(shared_data / "exams" / "*.jsonl"))}
    assert {name: exam.questions for name, exam in exams.items()} == {
        "arc_easy_en": 2376,
        "mmlu_professional_accounting_en": 282,
        "mmlu_professional_law_en": 1534,
        "mmlu_professional_medicine_en": 282,
        "oab_law_pt": 2212,
        "openbook_qa_en": 500,
        "piqa_en": 1838,
    }
    medicine = exams["mmlu_professional_medicine_en"]
    assert medicine.majority == 3 and medicine.answers[3] == 127 and medicine.most_choices == 4
    first = next(exams["openbook_qa_en"].read())
    assert first.choices == (
        "make more phone calls",
        "quit eating lunch out",
        "buy less with monopoly money",
        "have lunch with friends",
    )
    assert first.answer == 1 and not medicine.continues


@pytest.mark.parametrize(
    "line, message",
    [
        ({**GOOD, "choices": ["only this"]}, "its choices are 1 of them"),
        ({**GOOD, "choices": ["this", " ", "that"]}, "its choice 1 (counted from 0) is ' '"),
        ({**GOOD, "choices": ["this", None]}, "its choice 1 (counted from 0) is None"),
        ({**GOOD, "choices": "this or that"}, "its choices are str"),
        ({**GOOD, "answer": 3}, "its answer is 3; it is the index of the right choice, from 0 to 2"),
        ({**GOOD, "answer": -1}, "its answer is -1"),
        ({**GOOD, "answer": "C"}, "its answer is 'C'"),
        ({**GOOD, "answer": True}, "its answer is True"),
        ({**GOOD, "question": "  "}, "its question is '  '"),
        ({**GOOD, "question": "half \ud83d of one"}, "half of a surrogate pair"),
        ({**GOOD, "id": ""}, "its id is ''"),
        ({**GOOD, "document": 4}, "its document is 4"),
        ({name: GOOD[name] for name in ("id", "question")}, "the question has no 'choices' and no 'answer'"),
        ([1, 2], "is no question"),
        ('{"id": "two", ', "is not JSON"),
        ({**GOOD, "id": "first"}, "the id 'first' is that of line 1 too"),
    ],
)
def test_a_malformed_question_is_refused_with_file_and_line(tmp_path, line, message):
    path = write(tmp_path, {**GOOD, "id": "first"}, "", line)
    with pytest.raises(ConfigurationError) as error:
        open_exam(path)
    assert f"{path}, line 3" in str(error.value) and message in str(error.value)


def test_an_exam_of_nothing_or_of_two_kinds_or_nowhere_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="has no questions"):
        open_exam(write(tmp_path, ""))
    with pytest.raises(ConfigurationError, match="All have one, or none has"):
        open_exam(write(tmp_path, {**GOOD, "separator": " "}, {**GOOD, "id": 2}))
    with pytest.raises(ConfigurationError, match="there is no file"):
        find_exams(str(tmp_path / "*.csv"))
    for name in ("exam.jsonl", "exam.json"):
        write(tmp_path, GOOD, name=name)
    with pytest.raises(ConfigurationError, match="would both be called 'exam'"):
        find_exams([str(tmp_path / "exam.jsonl"), str(tmp_path / "exam.json")])
    (tmp_path / "exam.csv").write_text("id,question")
    with pytest.raises(ConfigurationError, match="is no JSONL file"):
        find_exams(str(tmp_path / "exam.csv"))


def test_a_list_may_hold_lists_and_what_names_no_exam(tmp_path):
    """Gin joins no lists: a study asks [EXAMS, BAR_EXAM], where either is a file, a list of them or None."""
    files = []
    for name in "abc":
        (tmp_path / name).mkdir()
        files.append(str(write(tmp_path / name, GOOD, name=f"{name}.jsonl")))
    assert [exam.name for exam in find_exams([[files[0], None], None, files[1], [files[2]]])] == ["a", "b", "c"]
    assert find_exams([None, []]) == [] == find_exams(None)
    with pytest.raises(ConfigurationError, match="EXAMS holds 3"):
        find_exams([[3]])
