"""The printed table: changes are those that the evaluation holds."""

import json
import math

from cptjax.evaluation.results import as_json_lines
from cptjax.evaluation.table import partly_compared, results_table


def row(checkpoint, suite, subset, metric, value):
    return {"checkpoint": checkpoint, "suite": suite, "subset": subset, "metric": metric, "value": value}


def test_a_line_for_each_number_and_a_column_for_each_checkpoint():
    table = results_table(
        [
            row("before", "loss", "code", "loss", 3.0),
            row("before", "loss", "code", "bits_per_byte", 1.5),
            row("before", "own_samples", "base", "kl", 0.0),
            row("after", "loss", "code", "loss", 2.0),
            row("after", "loss", "code", "loss_change", -1.0),
            row("after", "loss", "code", "bits_per_byte", 1.25),
            row("after", "loss", "code", "bits_per_byte_change", -0.25),
            row("after", "own_samples", "base", "kl", 0.5),
            row("another tokenizer, a long label", "loss", "code", "loss", 9.0),
        ]
    )
    assert [line.split() for line in table] == [
        ["before", "after", "another", "tokenizer,", "a", "long", "label"],
        ["code", "nats/token", "3.0000", "2.0000", "(-1.000)", "9.0000"],
        ["bits/byte", "1.5000", "1.2500", "(-0.250)", "-"],
        ["base's", "own", "samples", "KL,", "nats/token", "0.0000", "0.5000", "-"],
    ]
    assert len({len(line) for line in table}) == 1


def test_nothing_measured_is_no_table():
    assert len(results_table([])) == 1


def test_a_change_over_fewer_documents_than_its_value_is_said():
    row = {"checkpoint": "after", "suite": "loss", "subset": "code", "value": 1.0, "n": 30}
    rows = [{**row, "metric": "bits_per_byte"}, {**row, "metric": "bits_per_byte_change", "n": 25}]
    (sentence,) = partly_compared(rows)
    assert (
        "the change is over the 25 documents that the base was measured on too, the value over all its 30" in sentence
    )
    assert partly_compared([rows[0], {**rows[1], "n": 30}]) == []


def test_losses_that_are_not_finite_are_shown_and_written_as_text():
    row = {"checkpoint": "a", "suite": "loss", "subset": "code", "metric": "loss", "value": math.inf, "low": math.nan}
    assert "inf" in results_table([row])[1]
    assert json.loads(as_json_lines([row]))["value"] == "inf" and json.loads(as_json_lines([row]))["low"] == "nan"
