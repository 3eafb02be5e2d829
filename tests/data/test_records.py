"""Records become documents: by a template, or not at all; malformed ones are named, or counted up to a cap."""

import json

import pytest

from cptjax.data.records import QUESTION, BadRecords
from cptjax.data.sources import Text, documents, find_source
from cptjax.errors import ConfigurationError

GOOD = [{"id": str(i), "text": f"text {i}"} for i in range(40)]


def corpus(path, lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_question_becomes_a_document_by_a_template(tmp_path):
    question = {"id": "q1", "subject": "law", "question": "Who?", "choices": ["he", "she", "they"], "answer": 2}
    path = corpus(tmp_path / "exam.jsonl", [question])
    (found,) = documents(find_source("qa", Text(where=path, template=QUESTION)))
    assert found.text == "Question: Who?\nA. he\nB. she\nC. they\nAnswer: C. they"
    assert found.name == "q1" and found.metadata == {"subject": "law", "question": "Who?", "answer": 2}


def test_real_exams_become_documents(shared_data):
    path = shared_data / "exams" / "oab_law_pt.jsonl"
    found = list(documents(find_source("qa", Text(where=str(path), template=QUESTION))))
    assert len(found) == 2212 and all("\nAnswer: " in document.text for document in found)


@pytest.mark.parametrize(
    "record, message",
    [
        ({"question": "Who?"}, "line 1 has no 'lettered', which the template names"),
        ({"question": "Who?", "choices": ["a"], "answer": 1}, "its answer is 1; it counts from 0"),
        ({"question": "Who?", "choices": [], "answer": 0}, "its choices are not 1 to 26 texts"),
        ({"question": "Who?", "choices": ["a"], "answer": True}, "its answer is True"),
    ],
)
def test_a_record_that_the_template_does_not_fit_is_named(tmp_path, record, message):
    path = corpus(tmp_path / "exam.jsonl", [record])
    with pytest.raises(ConfigurationError, match=message):
        list(documents(find_source("qa", Text(where=path, template=QUESTION))))


@pytest.mark.parametrize("template", ["no field", "{open", "close}"])
def test_a_template_that_cannot_be_is_refused(template):
    with pytest.raises(ConfigurationError, match="template"):
        Text(where="a.jsonl", template=template)


def test_malformed_records_are_passed_over_counted_and_capped(tmp_path):
    bad = ["not JSON\n", {"id": "x"}, {"text": 5}, "[]\n"]
    path = corpus(tmp_path / "a.jsonl", [*GOOD[:20], *bad, *GOOD[20:]])
    with pytest.raises(ConfigurationError, match="line 21 is not JSON"):
        list(documents(find_source("a", path)))
    counted = BadRecords()
    found = list(documents(find_source("a", Text(where=path, on_bad_record="skip")), bad=counted))
    assert [document.name for document in found] == [record["id"] for record in GOOD]
    assert counted.count == 4 and "line 21 is not JSON" in counted.first[0]
    many = corpus(tmp_path / "b.jsonl", [*GOOD, *bad * 3])
    with pytest.raises(ConfigurationError, match="12 of 52 records are malformed(.|\n)*line 41 is not JSON"):
        list(documents(find_source("b", Text(where=many, on_bad_record="skip"))))
    assert len(list(documents(find_source("b", Text(where=many, on_bad_record="skip", most_bad=0.3))))) == 40


@pytest.mark.parametrize("settings", [{"on_bad_record": "ignore"}, {"most_bad": 2}, {"most_bad": "few"}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        Text(where="a.jsonl", **settings)


@pytest.mark.parametrize("field", ["id", "author"])
def test_half_a_surrogate_pair_in_any_field_is_a_malformed_record(tmp_path, field):
    path = corpus(tmp_path / "a.jsonl", [*GOOD, {"text": "hi", field: "\ud800"}])
    with pytest.raises(ConfigurationError, match="a.jsonl, line 41 holds half of a surrogate pair"):
        list(documents(find_source("a", path)))
    assert len(list(documents(find_source("a", Text(where=path, on_bad_record="skip"))))) == 40


@pytest.mark.parametrize("template", ["{question:d}", "{question:{width}}", "{question!r}", "{0}", "{a.b}", "{}"])
def test_a_template_has_names_and_nothing_else(template):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Text(where="a.jsonl", template=template)
