"""The rows of an evaluation, from what was measured by document."""

import json
import math
import warnings

import numpy as np

from cptjax.evaluation.documents import DocumentLosses
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.result_row import as_json_lines
from cptjax.evaluation.results import result_rows
from cptjax.evaluation.table import results_table


def measured(label, nats):
    names = tuple(f"d{i}" for i in range(len(nats)))
    losses = DocumentLosses(names, np.array(nats, float), np.full(len(nats), 2), np.full(len(nats), 8))
    return Measurement(label, "/runs/it", None, None, label, "tokenizer", {}, {"code": losses}, None, None)


def test_an_infinite_document_is_shown_written_and_given_no_interval():
    base, broken = measured("before", [1.0, 2.0, 3.0]), measured("after", [1.0, math.inf, 3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = result_rows([base, broken], base, seed=0)
    assert "inf (+inf)" in results_table(rows)[1]
    written = {(row["checkpoint"], row["metric"]): row for row in map(json.loads, as_json_lines(rows).splitlines())}
    for metric in ("loss", "bits_per_byte", "loss_change"):
        row = written["after", metric]
        assert (row["value"], row["low"], row["high"]) == ("inf", None, None)
    assert written["before", "loss"]["low"] < 1.0 < written["before", "loss"]["high"]


def test_two_infinite_losses_have_no_difference():
    base, other = measured("before", [math.inf, 1.0]), measured("after", [math.inf, 2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = result_rows([base, other], base, seed=0)
    assert "inf (+nan)" in results_table(rows)[1] and '"value": "nan"' in as_json_lines(rows)
