"""The pages of `inspect_data`: all that was found stands in them, escaped; on a phone and on a desk nothing overflows."""

import dataclasses
import json

import pytest
from browser_window import WIDTHS, shown

from cptjax.data.inspection import HELD_OUT, TRAIN, Contamination, Inspection, Overlap
from cptjax.data.plan import SourceInfo
from cptjax.data.planning import plan_data
from cptjax.data.source_facts import SourceFacts, StageShare
from cptjax.data.step_rows import ReadPiece, ReadRow
from cptjax.reporting.inspection_page import describe_inspection, inspection_json, inspection_page
from cptjax.reporting.rows_page import describe_rows, rows_lines, rows_page

STRANGE = "<b>law</b>&_" + "x" * 90
NOTHING = {"edges": [], "counts": []}


class Tokens:
    """A tokenizer whose every id is a letter, but for 1 and 2."""

    bos, eos = 1, 2

    def decode(self, ids):
        return "".join({1: "<s>", 2: "</s>"}.get(i, chr(i)) for i in ids)


def facts(name, trained=True):
    lengths = {"shortest": 1, "10%": 5, "median": 90, "90%": 4000, "longest": 123456}
    if not trained:
        return SourceFacts(name, False, 0, 0, 0, 0, 0.0, 0, 3, 400, {}, NOTHING)
    counts = {"edges": [1, 2, 3, 128, 8192, 131072], "counts": [1, 0, 40, 1959, 30]}
    return SourceFacts(name, True, 2030, 10**9, 2 * 10**8, 10**5, 0.987, 812, 20, 3000, lengths, counts)


def inspection(names=("general", STRANGE), clean=False):
    sets = [(name, TRAIN) for name in names] + [("never", HELD_OUT)]
    examples = ((STRANGE, "</td>id", 1.0), ("one", "two", 0.71))
    overlaps = [
        Overlap(a, b, *((0,) * 4 if clean else (3, 5, 40, 600)), 2030, 10**6, () if clean else examples)
        for a in sets
        for b in sets
    ]
    stages = [
        StageShare(f"stage {i}", name, 1 + 9 * i, 9 + 9 * i, 1 / len(names), 1e5, 4e5, 0.5)
        for i in range(2)
        for name in names
    ]
    contamination = (
        () if clean else (Contamination("/exams/law.jsonl", names[0], 2, 100, 1, (("id<i>", 7), ("d2", 9))),)
    )
    sources = (*map(facts, names), facts("never", trained=False))
    return Inspection(sources, tuple(stages), dict.fromkeys(names, 0.5), tuple(overlaps), contamination, 1, 0)


def rows(count=6):
    text = "Article 1:\n\tthe court\u202eheld\x00 中华 </s> <script>alert(1)</script> " + "word" * 100
    tokens = tuple(range(100, 130))
    pieces = (
        ReadPiece(f"id/{STRANGE}", 1, (*tokens, 2), 0, 31, text),
        ReadPiece("goes on", 97, tokens, 500, 2000, "b c"),
        ReadPiece("ends", 97, (*tokens, 2), 70, 101, "b c"),
    )
    return [ReadRow(3, i, "general" if i % 2 else STRANGE, i, 1, pieces, 9 * i) for i in range(count)]


def planned():
    info = SourceInfo(10, 1000, 4000, 20, "f", 512)
    return plan_data([("first <i>", {"general": 0.5, STRANGE: 0.5}, 12)], {"general": info, STRANGE: info}, 6, 0)


def test_the_page_of_a_plan_says_all_that_was_found():
    html = inspection_page("run", "/runs/<run>", inspection())
    assert "/runs/&lt;run&gt;" in html and "<b>law" not in html and "</td>id" not in html
    for heading in ("Sources", "Stages", "Lengths", "Duplicates in training rows", "Held-out text in", "Exam items in"):
        assert f"<h2>{heading}" in html
    assert (
        "Held-out text of never is in the training rows of general: 5 documents of 2,030 (0.06% of its tokens)" in html
    )
    assert "Of 100 items of the exam /exams/law.jsonl 2 stand in the training rows of general (1 document)" in html
    assert "item 7: id&lt;i&gt;; item 9: d2" in html and "evaluated only" in html
    assert html == inspection_page("run", "/runs/<run>", inspection())
    assert "http://" not in html.replace("http://www.w3.org", "") and "<script" not in html


def test_a_clean_plan_is_called_clean():
    html = inspection_page("run", "/runs/run", inspection(clean=True))
    assert 'class="alert"' not in html and "None is in any, nor nearly." in html
    assert "No document is in another source, nor nearly." in html and "Exam items" not in html
    assert not [line for line in describe_inspection(inspection(clean=True)) if "warning" in line]
    assert len([line for line in describe_inspection(inspection()) if line.startswith("warning")]) == 3


def test_estimates_and_chains_are_said():
    found = dataclasses.replace(inspection(), one_shingle_in=4, chained=1200)
    html = inspection_page("run", "/runs/run", found)
    assert "one run of words in 4" in html and "1,200 documents are in groups so large" in html
    assert json.loads(inspection_json(found))["one_shingle_in"] == 4


def test_the_page_of_a_step_shows_text_tokens_and_places():
    html = rows_page("run", "/runs/run", planned(), rows(), Tokens(), 4, passed_over=True)
    assert "Step 3 of 12, counted from 1 as the log does, in the stage “first &lt;i&gt;”" in html
    assert "told to pass over step 3" in html and "2 more rows of this step not shown here (MOST_ROWS = 4)" in html
    assert html.count('<section class="row">') == 4 and "9 positions of padding" in html
    assert "whole: 31 tokens" in html and "goes on here: tokens 501 to 530 of 2,000" in html
    assert "ends here: tokens 71 to 101 of 101" in html
    assert (
        '<span class="special">&lt;s&gt;</span>Article 1:<span class="sign">↵\n</span><span class="sign">→\t</span>'
        in html
    )
    assert (
        '<span class="sign">U+202E</span>held<span class="sign">␀</span> 中华 <span class="special">&lt;/s&gt;</span>'
        in html
    )
    assert (
        '<span class="context">a</span>b c</pre>' in html
        and '<span class="context">a</span>b c<span class="special">&lt;/s&gt;' in html
    )
    assert "<script" not in html and "&lt;script&gt;" in html
    said = describe_rows(planned(), rows())
    assert (
        said[0].startswith("step 3 of 12, stage 'first <i>': 6 rows") and "3 rows, 3 documents, 276 tokens" in said[1]
    )


def test_rows_as_lines_say_the_same():
    (first, *_), found = [json.loads(line) for line in rows_lines(rows()).splitlines()], rows()
    assert (first["step"], first["index"], first["source"], first["row"], first["epoch"]) == (3, 0, STRANGE, 0, 1)
    assert [piece["text"] for piece in first["pieces"]] == [piece.text for piece in found[0].pieces]


def whole_rows(most=64):
    return rows_page("run", "/runs/" + "long" * 60, planned(), rows(), Tokens(), most)


def many_sources():
    return inspection_page("run", "/runs/run", inspection(tuple(f"source_{i}_with_a_name" for i in range(7))))


@pytest.mark.parametrize(
    "written",
    [whole_rows, many_sources, lambda: inspection_page("run", "/runs/" + "long" * 60, inspection())],
    ids=["rows", "many sources", "strange names"],
)
def test_pages_on_a_phone_and_on_a_desk(browser, tmp_path, written):
    measured, console = shown(browser, tmp_path, written())
    assert not console
    for found, width in zip(measured, WIDTHS, strict=True):
        assert found["scroll"] <= width, found["wide"]
        for complaint in ("wide", "flat", "small", "cut", "overlapping"):
            assert not found[complaint], (width, complaint)
