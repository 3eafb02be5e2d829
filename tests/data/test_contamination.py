"""Exam items in documents: the runs of the definition, by brute force; texts with and without spaces."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.contamination import CHARACTERS, WORDS, describe_exams, fold, open_exams
from cptjax.errors import ConfigurationError

LONG = "the court held that a person who has signed the contract may not say later that he had"  # 18 words
CHINESE = "中华人民共和国公民的合法的私有财产不受侵犯国家依照法律规定保护公民的私有财产权和继承权"


def exams(folder, items):
    path = folder / "exam.jsonl"
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return open_exams([str(path)])


def question(text, *choices):
    return {"question": text, "choices": list(choices) or ["yes", "no"], "answer": 0}


def test_thirteen_words_of_an_item_are_found_and_twelve_are_not(tmp_path):
    found = exams(tmp_path, [question("Who is it?"), question(LONG)])
    words = LONG.split()
    assert found.found_in("before " + " ".join(words[2:15]) + " after").tolist() == [1]
    assert found.found_in("before " + " ".join(words[2:14]) + " after").tolist() == []
    assert found.short == 1 and list(found.items.values()) == [2]


def test_white_space_and_compatibility_forms_do_not_hide_it_and_case_does(tmp_path):
    found = exams(tmp_path, [question(LONG)])
    hidden = unicodedata.normalize("NFKC", LONG).replace(" ", " \n\t").replace("fi", "\ufb01")
    assert found.found_in(hidden).tolist() == [0]
    assert found.found_in(LONG.upper()).tolist() == []


def test_scripts_without_spaces_are_compared_by_characters(tmp_path):
    found = exams(tmp_path, [question(CHINESE[:34], "甲", "乙")])
    assert found.found_in("前言。" + CHINESE[2:32] + "其他").tolist() == [0]
    assert found.found_in("前言。" + CHINESE[2:31] + "其他").tolist() == []
    assert found.found_in("前言。" + CHINESE[2:16] + "\n " + CHINESE[16:32]).tolist() == [
        0
    ]  # a line break hides nothing


def test_a_run_across_question_and_choice_counts(tmp_path):
    words = LONG.split()
    found = exams(tmp_path, [question(" ".join(words[:10]), " ".join(words[10:]), "nothing of it")])
    assert found.found_in(" ".join(words[3:16])).tolist() == [0]


ITEMS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=30).map(" ".join), min_size=1, max_size=5)


@given(ITEMS, st.lists(st.sampled_from("abc"), max_size=60).map(" ".join))
def test_it_is_the_definition(tmp_path_factory, items, text):
    found = exams(tmp_path_factory.mktemp("exams"), [{"text": item} for item in items])

    def all_runs(text):
        words = fold(text).split()
        return {tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}

    expected = [i for i, item in enumerate(items) if all_runs(item) & all_runs(text)]
    assert found.found_in(text).tolist() == expected


def test_the_real_exams_have_few_items_that_are_too_short(shared_data):
    found = open_exams([str(path) for path in sorted((shared_data / "exams").glob("oab*.jsonl"))])
    (count,) = found.items.values()
    assert count == 2212 and found.short < 0.2 * count
    assert CHARACTERS == 30


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(Exception, match="there is no exam file"):
        open_exams([str(tmp_path / "none.jsonl")])


@pytest.mark.parametrize(
    "item",
    [
        {"question": "What follows?", "choices": {"text": ["no", LONG], "label": ["A", "B"]}},
        {"question": "What follows?", "options": ["no", LONG]},
        {"question": "What follows?", "A": "no", "B": LONG},
        {"question": "What follows?", "choices": ["no"], "passage": LONG},
        {"question": "What follows?", "text": LONG},
        {"text": LONG},
    ],
)
def test_items_of_every_shape_that_exams_have_are_found(tmp_path, item):
    assert exams(tmp_path, [item]).found_in(f"Once {LONG}.").tolist() == [0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "Who?", "choices": "AB"}', "line 1: its choices are 'AB'"),
        ('{"prompt": "Who?"}', r"line 1 is no exam item .* its fields are \['prompt'\]"),
        ("{not json", "line 1 is not JSON"),
        ("[]", "line 1 holds list"),
        ('{"question": "\\ud800"}', "line 1 holds half of a surrogate pair"),
    ],
)
def test_a_line_that_is_no_item_is_named(tmp_path, line, said):
    (tmp_path / "exam.jsonl").write_text(line + "\n")
    with pytest.raises(ConfigurationError, match=said):
        open_exams([str(tmp_path / "exam.jsonl")])


def test_a_passage_without_spaces_within_a_text_with_them_is_found(tmp_path):
    found = exams(tmp_path, [question(f"What does this sentence of the constitution mean: {CHINESE}")])
    assert found.found_in(f"第一条 {CHINESE}。").tolist() == [0]
    assert found.found_in("What does this sentence of").tolist() == []


def test_how_many_items_cannot_be_looked_for_is_said(tmp_path):
    found = exams(tmp_path, [question("Who?"), question(LONG)])
    assert describe_exams(found) == (
        "2 exam items in 1 file; 1 of them are too short to be looked for (13 words, or 30 characters)"
    )
