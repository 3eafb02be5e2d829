"""What a plan's rows hold, counted: planted duplicates, leaks and exam items are found, each where it was planted."""

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.data.contamination import open_exams
from cptjax.data.inspection import HELD_OUT, TRAIN, inspect_plan
from cptjax.data.packing import BEST_FIT, CONCATENATE
from cptjax.data.planning import plan_data
from cptjax.data.prepare import ensure_rows
from cptjax.data.rows import RowReader
from cptjax.data.source_facts import histogram
from cptjax.data.tokenizer import open_tokenizer

WORDS = [f"word{n}" for n in range(2000)]
QUESTION = "the court held that a person who has signed the contract may not say later that he had"  # 18 words


def own_texts(count, seed):
    """Texts of 30 to 60 words with nothing in common."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=30 + n % 30)) for n in range(count)]


def nearly(text):
    """The text with one word changed at its end: Jaccard similarity (k - 5) / (k - 3) of its k words."""
    return " ".join([*text.split()[:-1], "changed"])


def write(path, texts):
    path.write_text(
        "".join(json.dumps({"id": f"{path.stem}/{i}", "text": text}) + "\n" for i, text in enumerate(texts))
    )
    return str(path)


@pytest.fixture(scope="module", params=[CONCATENATE, BEST_FIT])
def planted(request, byte_level, tmp_path_factory):
    """Law: 40 texts, one of them three times (once in capitals), one twice nearly, one with the question.
    Web: 30 texts, two that are law's, one that is nearly law's, and all that "seen" holds out. Seen: evaluated only."""
    folder = tmp_path_factory.mktemp("planted")
    law, web, seen = own_texts(40, 1), own_texts(30, 2), own_texts(12, 3)
    law += [law[0].upper(), "  " + law[0] + "\n", nearly(law[1]), f"{law[2]} {QUESTION} {law[3]}"]
    web += [law[4], law[5], nearly(law[6]), *seen]
    sources = {name: write(folder / f"{name}.jsonl", each) for name, each in (("law", law), ("web", web))}
    settings = {"packing": request.param, "report": str}
    tokenizer, rows = str(byte_level), str(folder / "rows")
    found = ensure_rows(sources, tokenizer, 32, rows, validation_fraction=0, **settings)
    found |= ensure_rows(
        {"seen": write(folder / "seen.jsonl", seen)}, tokenizer, 32, rows, validation_fraction=0.3, **settings
    )
    plan = plan_data(
        [("first", {"law": 1.0}, 2), ("second", {"law": 0.25, "web": 0.75}, 6)],
        {name: found[name].info for name in ("law", "web")},
        4,
        seed=0,
    )
    other = folder / "other.jsonl"
    other.write_text(json.dumps({"question": "Who may say so?", "choices": ["a", "b"]}) + "\n")
    exam = folder / "exam.jsonl"
    lines = [
        {"question": " ".join(own_texts(1, 9)), "choices": ["no"]},
        {"question": QUESTION, "choices": ["yes", "no"]},
    ]
    exam.write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = {name: RowReader(found[name].train) for name in ("law", "web")}
    held_out = {"seen": RowReader(found["seen"].validation)}
    lines = []
    exams = open_exams([str(other), str(exam)])
    inspected = inspect_plan(plan, train, held_out, open_tokenizer(tokenizer), exams, lines.append)
    return inspected, plan, train, held_out, (str(other), str(exam)), lines


def test_duplicates_within_and_across(planted):
    inspected, _, train, held_out, _, lines = planted
    overlap = {(each.of, each.inside): each for each in inspected.overlaps}
    assert len(overlap) == 9
    law, web = ("law", TRAIN), ("web", TRAIN)
    within = overlap[law, law]
    assert (within.exact, within.near, within.documents) == (3, 5, 44)
    size = {each["id"]: each["tokens"] for each in train["law"].documents(range(44))}
    assert within.exact_tokens == sum(size[f"law/{i}"] for i in (0, 40, 41))
    assert within.near_tokens == within.exact_tokens + size["law/1"] + size["law/42"]
    assert within.tokens == sum(size.values()) == train["law"].manifest.tokens
    ids = {frozenset((one, other)) for one, other, _ in within.examples}
    assert {"law/1", "law/42"} in ids and {"law/0", "law/40"} in ids
    assert (overlap[web, web].exact, overlap[web, web].near) == (0, 0)
    assert (overlap[law, web].exact, overlap[law, web].near) == (2, 3)
    assert (overlap[web, law].exact, overlap[web, law].near) == (2, 3)
    assert {each[:2] for each in overlap[web, law].examples} == {
        ("web/30", "law/4"),
        ("web/31", "law/5"),
        ("web/32", "law/6"),
    }
    assert {similarity for *_, similarity in overlap[web, law].examples} >= {1.0}
    assert inspected.within() == [overlap[law, law], overlap[web, web]]
    assert inspected.across() == [overlap[law, web], overlap[web, law]]
    assert inspected.one_shingle_in == 1 and inspected.chained == 0
    assert "  law, training: 44 documents read" in lines


def test_held_out_text_that_another_source_trains_on_is_a_leak(planted):
    inspected, _, _, held_out, _, _ = planted
    count = held_out["seen"].manifest.documents
    leaks = {each.inside[0]: each for each in inspected.leaks()}
    assert set(leaks) == {"law", "web"} and count > 0
    assert (leaks["web"].exact, leaks["web"].near, leaks["web"].documents) == (count, count, count)
    assert leaks["web"].near_tokens == leaks["web"].tokens == held_out["seen"].manifest.tokens
    assert leaks["law"].near == 0 and leaks["web"].of == ("seen", HELD_OUT)


def test_the_exam_item_is_found_where_it_was_planted(planted):
    inspected, _, _, _, (other, exam), _ = planted
    found = {(each.exam, each.source): each for each in inspected.contamination}
    assert set(found) == {(file, name) for file in (other, exam) for name in ("law", "web")}
    assert found[exam, "law"].examples == (("law/43", 2),)
    assert (found[exam, "law"].items, found[exam, "law"].of, found[exam, "law"].documents) == (1, 2, 1)
    assert [each.items for key, each in found.items() if key != (exam, "law")] == [0, 0, 0]


def test_sources_and_stages_are_counted(planted):
    inspected, plan, train, held_out, _, _ = planted
    facts = {each.name: each for each in inspected.sources}
    assert list(facts) == ["law", "web", "seen"] and not facts["seen"].trained
    assert facts["seen"].held_out_documents == held_out["seen"].manifest.documents
    for name, reader in train.items():
        each, rows = facts[name], reader.pieces(range(len(reader)))
        lengths = sorted(document["tokens"] for document in reader.documents(range(reader.manifest.documents)))
        pieces = np.concatenate([row.ordinals for row in rows])
        assert each.cut == (np.bincount(pieces) > 1).sum() > 0
        assert each.fill == sum(int(row.lengths.sum()) for row in rows) / (32 * len(rows))
        assert each.lengths["shortest"] == lengths[0] and each.lengths["longest"] == lengths[-1]
        assert each.lengths["median"] == lengths[(len(lengths) - 1) // 2]
        assert sum(each.histogram["counts"]) == each.documents == len(lengths)
    read = {(each.stage, each.source): each for each in inspected.stages}
    assert (read["first", "law"].share, read["first", "law"].first, read["first", "law"].last) == (1.0, 1, 2)
    assert (read["second", "web"].first, read["second", "web"].last) == (3, 8)
    assert read["second", "law"].share + read["second", "web"].share == pytest.approx(1)
    counted = sum(int((plan.rows(step)[0] == 1).sum()) for step in range(8))
    assert read["second", "web"].epochs == inspected.epochs["web"] == counted / plan.sources["web"].rows


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50))
def test_a_histogram_counts_every_length_once(lengths):
    found = histogram(np.array(lengths))
    edges = found["edges"]
    assert sorted(set(edges)) == edges
    assert found["counts"] == [sum(a <= x < b for x in lengths) for a, b in zip(edges, edges[1:], strict=False)]
    assert sum(found["counts"]) == len(lengths)
