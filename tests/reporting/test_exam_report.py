"""Exams in a report: bars beside chance and what is known without the question, a table, and the tables for papers."""

import json
import re

import numpy as np
import pytest
from run_folders import evaluation_rows, write_run

from cptjax.evaluation.exams.answers import ExamAnswers
from cptjax.evaluation.exams.in_training import AtStep
from cptjax.evaluation.exams.rows import exam_rows
from cptjax.evaluation.measurement import Measurement
from cptjax.reporting.report import evaluation_tables, evaluation_trades, page
from cptjax.reporting.run_content import read_run
from cptjax.reporting.table_text import as_latex, as_markdown
from cptjax.reporting.tables import Cell, as_table

ARMS = {"before": {"general": 3.6, "target": 4.6}, "after": {"general": 3.8, "target": 3.5}}


def answers(seed, right, questions=400):
    random = np.random.default_rng(seed)
    columns = {
        **{f"letter_accuracy{each}": (random.random(questions) < 0.26).astype(float) for each in ("", "_as_written")},
        **{
            f"cloze_accuracy{each}": (random.random(questions) < right).astype(float)
            for each in ("", "_per_character", "_per_byte")
        },
    }
    for form in ("letter", "cloze"):
        columns[f"{form}_nats"] = random.gamma(4, 1, questions)
        columns[f"{form}_tokens"] = np.full(questions, 3.0)
        columns[f"{form}_margin"] = random.normal(0, 1, questions)
        columns[f"{form}_answer_prior"] = (random.random(questions) < 0.28).astype(float)
    columns["chance"] = np.full(questions, 0.25)
    columns["majority_letter"] = (random.random(questions) < 0.27).astype(float)
    return ExamAnswers(columns, None, 0)


@pytest.fixture(scope="module")
def rows():
    found = list(evaluation_rows(ARMS))
    base, after = answers(0, 0.3), answers(1, 0.55)
    for label, mine, theirs in (("before", base, None), ("after", after, base)):
        measured = Measurement(label, "/runs/it", None, None, label, "tokenizer", {}, {}, None, None)
        found += exam_rows(measured, "law_en", mine, theirs, True, seed=0)
    return found


def test_exams_are_shown_beside_their_baselines(rows, tmp_path):
    run = read_run(write_run(tmp_path / "after"), "after")
    html = page([run], rows)
    words = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert "Exam law_en, picking a letter" in words and "Exam law_en, the likeliest choice" in words
    assert words.count("chance, 0.250") == 2 and "the same checkpoint without the question" in words
    assert "400 questions" in words and "p &lt; 0.0001" in words and "cloze form, per character" in words
    assert "questions (this checkpoint only)" in words  # what varies in the intervals
    assert "exam: law_en" not in words  # they are in no other table
    assert page([run], rows) == html
    without = page([run], [row for row in rows if row["suite"] != "exam"])
    assert "Exams" not in re.sub(r"<style>.*</style>", "", without, flags=re.DOTALL)
    alone = page([run], [row for row in rows if row["suite"] == "exam"])
    assert "<h3>Exams</h3>" in alone and "<h3>Results</h3>" not in alone


def test_tables_for_papers_hold_what_the_page_holds(rows, tmp_path):
    run = read_run(write_run(tmp_path / "after"), "after")
    tables = evaluation_tables([run], rows)
    assert [table.label for table in tables] == ["Results", "Gain and forgetting", "Exams"]
    markdown, latex = as_markdown(tables), as_latex(tables)
    lines = [line for line in markdown.splitlines() if line.startswith("| law\\_en")]
    assert len(lines) == 1 and "letter accuracy" in lines[0]
    assert all(line.count("|") == 6 for line in markdown.partition("### Exams")[2].strip().splitlines())
    assert (
        latex.count(r"\begin{tabular}{llrrr}") == 2
        and latex.count(r"\begin{tabular}{lrr}") == 1
        and r"law\_en" in latex
        and "$-$" in latex
    )


def test_a_run_that_answered_exams_shows_them_over_its_tokens(tmp_path):
    folder = write_run(tmp_path / "run")
    lines = []
    for step in (0, 20, 40, 60):
        found = exam_rows(AtStep(step, 1024 * step), "law_en", answers(step, 0.3 + step / 200), None, True, seed=0)
        lines += [json.dumps(row) for row in found]
    (folder / "evaluation.jsonl").write_text("\n".join(lines) + "\n")
    html = page([read_run(folder)])
    words = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert "Exam law_en, picking a letter: accuracy" in words and "Exam law_en, the likeliest choice: accuracy" in words
    assert words.count("without the question") >= 3 and "400 questions, the same each time. Band: 95% interval" in words
    table = words.partition("Exams as it trained")[2]
    first, last = (json.loads(lines[place])["value"] for place in (0, -len(lines) // 4))
    assert "step 0" in table and "step 60" in table and f"{first:.3f}" in table and f"{last:.3f}" in table
    (folder / "evaluation.jsonl").write_text('{"step": 1}')
    assert "evaluation.jsonl is damaged" in page([read_run(folder)])


def test_what_means_something_to_latex_and_markdown_is_written_out():
    table = as_table("T", ["a_b", Cell("c|d", "5% & more")], [["#1 \\ x^2", "−3"], ["[x]", "<b>"]], (1,))
    assert as_markdown([table]) == (
        "### T\n\n| a\\_b | c\\|d 5% & more |\n| --- | ---: |\n| #1 \\\\ x^2 | −3 |\n| [x] | \\<b> |\n"
    )
    assert as_latex([table]).splitlines() == [
        "% T",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & c|d {\footnotesize 5\% \& more} \\",
        r"\midrule",
        r"\#1 \textbackslash{} x\textasciicircum{}2 & $-$3 \\",
        r"{}[x] & $<$b$>$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_gain_and_forgetting_are_a_table_of_checkpoints_by_domains(tmp_path):
    """By hand: "with" gains 1.05 and loses 0.1 of general (0.095 for each); "worse" gains less and loses more."""
    arms = {
        "before": {"general": 3.6, "target": 4.6, "never_replayed": 3.2},
        "with": {"general": 3.7, "target": 3.55, "never_replayed": 3.2},
        "worse": {"general": 3.8, "target": 3.6, "never_replayed": 3.1},
    }
    run = read_run(write_run(tmp_path / "with"), "with")
    table = evaluation_tables([run], evaluation_rows(arms), targets=["target"])[1]
    assert [cell.text for cell in table.head] == [
        "checkpoint",
        "gain on target",
        "forgetting of general",
        "forgetting of never_replayed",
    ]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["with", "+1.0500", "+0.1000", "±0.0000"],
        ["worse", "+1.0000", "+0.2000", "−0.1000"],
    ]
    assert table.rows[0][1].small == "[+1.000, +1.100]"
    assert table.rows[0][2].small == "[+0.050, +0.150]; 0.095 for each gained; on the frontier"
    assert table.rows[1][2].small == "[+0.150, +0.250]; 0.200 for each gained"
    assert "on the frontier" in table.rows[1][3].small
    rows = evaluation_trades([run], evaluation_rows(arms), targets=["target"])
    found = {(row["checkpoint"], row["subset"], row["metric"]): row["value"] for row in rows}
    assert found["with", "target -> general", "exchange_rate"] == pytest.approx(0.1 / 1.05)
    assert [found[each, "target -> general", "on_frontier"] for each in ("with", "worse")] == [1.0, 0.0]
    assert found["worse", "target -> never_replayed", "forgetting"] == pytest.approx(-0.1)
