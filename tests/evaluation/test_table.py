"""The printed table: changes are those that the evaluation holds."""

import json
import math

from cptjax.evaluation.result_row import as_json_lines
from cptjax.evaluation.table import few_documents, partly_compared, results_table


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
    def sentences(after, before, common):
        row = {"checkpoint": "after", "suite": "loss", "subset": "code", "metric": "bits_per_byte", "value": 1.0}
        change = {**row, "metric": "bits_per_byte_change", "n": common}
        return partly_compared([{**row, "n": after}, change, {**row, "checkpoint": "before", "n": before}])

    for after, before in ((30, 25), (25, 30)):  # it may be the base that was measured on more
        assert sentences(after, before, 25) == [
            "after, code: the change is over 25 documents that both hold out; "
            f"the values are over {after}, and over {before} of before"
        ]
    assert sentences(30, 30, 30) == []


def test_losses_that_are_not_finite_are_shown_and_written_as_text():
    row = {"checkpoint": "a", "suite": "loss", "subset": "code", "metric": "loss", "value": math.inf, "low": math.nan}
    assert "inf" in results_table([row])[1]
    assert json.loads(as_json_lines([row]))["value"] == "inf" and json.loads(as_json_lines([row]))["low"] == "nan"


def test_what_is_over_few_documents_as_reported_is_named():
    rows = [row("before", suite, subset, "loss", 1.0) for suite, subset in (("loss", "code"), ("loss", "law"))]
    rows += [
        row("before", "loss_by_field", "law[court=high]", "loss", 1.0),
        row("before", "own_samples", "base", "loss", 1),
    ]
    few = few_documents([{**each, "n": n} for each, n in zip(rows, (20, 19, 3, 4), strict=True)])
    said = "fewer than 20 held-out documents, so that intervals say little (VALIDATION_TOKENS): "
    assert few == [f"{said}law (19)", f"{said}law[court=high] (3)"]
