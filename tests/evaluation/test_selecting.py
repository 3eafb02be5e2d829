"""A checkpoint is chosen by one half and reported on the other."""

import dataclasses

import numpy as np
import pytest

from cptjax.errors import ConfigurationError
from cptjax.evaluation.alike import groups_of
from cptjax.evaluation.documents import DocumentLosses
from cptjax.evaluation.exams.answers import ExamAnswers
from cptjax.evaluation.exams.questions import Question
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.results import result_rows
from cptjax.evaluation.selecting import names_of, select, selection_sentence


def measured(label, nats, right=(), documents=None, tokenizer="t"):
    names = tuple(f"d{i}" for i in range(len(nats)))
    losses = DocumentLosses(names, np.array(nats, float), np.full(len(nats), 2), np.full(len(nats), 8))
    columns = {"cloze_accuracy": np.array(right, float), "chance": np.full(len(right), 0.25)}
    columns |= {
        "majority_letter": columns["chance"],
        "cloze_nats": columns["chance"],
        "cloze_tokens": columns["chance"],
    }
    columns |= {f"cloze_accuracy_per_{each}": columns["cloze_accuracy"] for each in ("character", "byte")}
    columns |= {"cloze_margin": columns["chance"]}
    exams = {"law": ExamAnswers(columns, documents, 0)} if len(right) else {}
    return Measurement(
        label, "/it", None, None, label, tokenizer, {"code": tokenizer}, {"code": losses}, None, None, exams
    )


def test_what_chooses_is_in_no_reported_number():
    """Among checkpoints that are equally good the chosen one looks better where it was chosen, and only there."""
    random = np.random.default_rng(0)
    base = measured("base", np.full(60, 4.0))
    here, there = [], []
    for _ in range(40):
        found = [base, *(measured(f"step {i}", 4 + random.normal(0, 1, 60)) for i in range(8))]
        chosen = select(found, base, "code")
        assert chosen.values[chosen.label] == min(chosen.values.values()) and 15 < chosen.n < 45
        reported = {each.label: each.sources["code"] for each in chosen.reported}
        here.append(chosen.values[chosen.label])
        there.append(reported[chosen.label].total.loss)
    rows = {(row["checkpoint"], row["metric"]): row for row in result_rows(chosen.reported[:2], chosen.reported[0], 0)}
    assert rows["step 0", "loss"]["n"] == 60 - chosen.n == rows["base", "loss"]["n"] == len(reported["step 7"])
    assert np.mean(here) < 1.95 and abs(np.mean(there) - 2.0) < 0.05  # 2 nats a token is the truth


def test_by_exam_the_most_often_right_is_chosen_and_documents_stay_whole():
    documents = np.repeat(np.arange(20), 3)
    base = measured("base", [1, 2], np.zeros(60), documents)
    found = [
        base,
        measured("worse", [1, 2], np.arange(60) % 2, documents),
        measured("better", [1, 2], np.ones(60), documents),
    ]
    chosen = select(found, base, "law", [f"document {each}" for each in documents])
    assert (chosen.label, chosen.metric) == ("better", "cloze_accuracy") and chosen.values["better"] == 1.0
    kept = chosen.reported[2].exams["law"]
    assert len(kept) == 60 - chosen.n and chosen.n % 3 == 0
    assert np.bincount(kept.documents).tolist() == [3] * (len(kept) // 3)
    rows = {(row["checkpoint"], row["metric"]): row for row in chosen.rows}
    assert rows["better", "selected"]["value"] == 1.0 and rows["worse", "selected"]["value"] == 0.0
    assert ("base", "selected") not in rows and "in no other row" in rows["worse", "selecting_cloze_accuracy"][
        "interval"
    ]


def test_between_tokenizers_bits_per_byte_choose():
    base = measured("base", np.full(30, 2.0))
    other = dataclasses.replace(measured("other", np.full(30, 1.5)), tokenizer="u", rows={"code": "u"})
    assert select([base, measured("one", np.full(30, 1.8)), other], base, "code").metric == "bits_per_byte"


def test_where_tokenizers_differ_all_are_chosen_by_the_documents_that_all_hold_out():
    base, one = measured("base", np.full(40, 2.0)), measured("one", np.full(40, 1.8))
    fewer = measured("other", np.full(20, 1.9))  # less held out: the first twenty
    other = dataclasses.replace(fewer, tokenizer="u", rows={"code": "u"})
    one.sources["code"].nats[20:] = 9.0  # where `other` has nothing
    chosen = select([base, one, other], base, "code")
    assert chosen.label == "one" and chosen.n <= 20
    assert {row["n"] for row in chosen.rows} == {chosen.n}


def test_what_is_no_number_is_not_chosen():
    base, good = measured("base", np.full(30, 2.0)), measured("good", np.full(30, 1.8))
    broken = measured("broken", np.full(30, np.nan))
    for found in ([base, broken, good], [base, good, broken]):
        chosen = select(found, base, "code")
        assert chosen.label == "good"
        assert selection_sentence(chosen.rows).endswith(f"in no line above: good ({chosen.values['good']:.4f})")
    with pytest.raises(ConfigurationError, match="no checkpoint has a finite loss"):
        select([base, broken, dataclasses.replace(broken, label="too")], base, "code")
    assert selection_sentence([]) is None


def test_the_same_question_is_on_one_half():
    asked = [Question("a", "Which  one?", ("x", "y"), 0), Question("b", "which one?", ("y", "z"), 1)]
    asked += [Question("c", "A third?", ("x", "y"), 0, document="d"), Question("d", "Another?", ("x", "y"), 0, "d")]
    names = names_of(asked)
    assert names[0] == names[1] != names[2] == names[3]


def test_what_chooses_and_what_is_reported_share_no_near_duplicate():
    """Thirty texts, each with a copy that has one word more: by their names half of the pairs would be parted."""
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in random.integers(0, 5000, 40)) for _ in range(30)]
    texts += [text + " more" for text in texts]
    found = groups_of(texts, 0.7)
    assert found[:30] == found[30:] and len(set(found)) == 30
    assert groups_of(texts, None) != found and len(set(groups_of(texts, None))) == 60
    names = names_of(Question(str(i), text, ("x", "y"), 0) for i, text in enumerate(texts))
    assert names[:30] == names[30:]
    joined = names_of(Question(str(i), text, ("x", "y"), 0, str(i % 3)) for i, text in enumerate(texts))
    assert len(set(joined)) == 3  # by document, too
    losses = [measured(label, np.arange(60) + place) for place, label in enumerate(("base", "one", "two"))]
    groups = {f"d{i}": group for i, group in enumerate(found)}
    chosen = select(losses, losses[0], "code", groups=groups)
    kept = {int(name[1:]) for name in chosen.reported[1].sources["code"].names}
    assert kept and {place % 30 for place in kept}.isdisjoint(place % 30 for place in set(range(60)) - kept)


def test_what_cannot_be_chosen_by_is_refused():
    base = measured("base", [1.0, 2.0])
    with pytest.raises(ConfigurationError, match="not two checkpoints"):
        select([base, measured("one", [1.0, 2.0])], base, "code")
    with pytest.raises(ConfigurationError, match="the name of a source or of an exam: 'code'"):
        select([base, base, measured("one", [1.0]), measured("two", [1.0])], base, "prose")
    with pytest.raises(ConfigurationError, match="too few"):
        select([base, measured("one", [1.0]), measured("two", [1.0])], base, "code")
