"""A step's rows as text: the tokens are those of the batch, and the texts of a document's pieces are its text."""

import json

import numpy as np
import pytest

from cptjax.data.batch import batch
from cptjax.data.packing import BEST_FIT, CONCATENATE
from cptjax.data.planning import plan_data
from cptjax.data.prepare import ensure_rows
from cptjax.data.rows import RowReader
from cptjax.data.step_rows import rows_of_step
from cptjax.data.tokenizer import open_tokenizer

TEXTS = [f"Article {i}:  the {'court ' * (i % 9)}held\n\tthat § {i * i} 中华 applies {i}." for i in range(30)]
TEXTS += ["word " * 60, " a leading space", "x"]


@pytest.fixture(scope="module", params=[CONCATENATE, BEST_FIT])
def prepared(request, llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("step_rows")
    sources = {}
    for name in ("law", "web"):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"id": f"{name}/{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS)))
        sources[name] = str(path)
    found = ensure_rows(
        sources, str(llama), 24, str(folder / "rows"), validation_fraction=0, packing=request.param, report=str
    )
    stages = [("first", {"law": 1.0}, 3), ("second", {"law": 0.5, "web": 0.5}, 60)]
    plan = plan_data(stages, {name: each.info for name, each in found.items()}, 8, seed=3, start_rows={"law": 5})
    return {name: RowReader(each.train) for name, each in found.items()}, plan, open_tokenizer(str(llama))


def test_the_tokens_are_those_of_the_batch(prepared):
    readers, plan, tokenizer = prepared
    for step in (0, 2, 3, 62):
        served = batch(readers, plan, step)
        rows = list(rows_of_step(readers, plan, tokenizer, step))
        assert [row.index for row in rows] == list(range(8)) and {row.step for row in rows} == {step + 1}
        assert [row.source for row in rows] == [plan.names[i] for i in served["source"]]
        assert [row.row for row in rows] == plan.rows(step)[1].tolist()
        for row, targets, inputs, segments in zip(
            rows, served["targets"], served["inputs"], served["segment_ids"], strict=True
        ):
            assert [t for piece in row.pieces for t in piece.tokens] == targets[segments > 0].tolist()
            assert row.padding == (segments == 0).sum()
            for number, piece in enumerate(row.pieces, start=1):
                assert inputs[segments == number].tolist() == [piece.context, *piece.tokens[:-1]]


def test_the_text_of_a_document_is_that_of_its_pieces(prepared):
    """All rows of the first epochs together, against the texts tokenized independently."""
    readers, plan, tokenizer = prepared
    pieces = {}
    for step in range(plan.steps):
        for row in rows_of_step(readers, plan, tokenizer, step):
            for piece in row.pieces:
                pieces.setdefault(piece.id, {})[piece.first] = piece
    whole = 0
    for name in readers:
        for i, text in enumerate(TEXTS):
            mine = [piece for _, piece in sorted(pieces[f"{name}/{i}"].items())]
            ids = tokenizer.encode(text)
            assert [t for piece in mine for t in piece.tokens] == [*ids, tokenizer.eos]
            assert mine[0].context == tokenizer.start and mine[0].begins and mine[-1].ends
            assert all(piece.of == len(ids) + 1 for piece in mine)
            at = 0
            for piece in mine:
                assert piece.first == at
                at += len(piece.tokens)
            joined = "".join(piece.text for piece in mine)
            cut_a_character = "\ufffd" in joined  # by a row's end
            assert cut_a_character or joined == tokenizer.decode(ids) == text.removeprefix(" ")
            whole += not cut_a_character
    assert whole > len(TEXTS)


def test_epochs_count_from_one_and_with_the_trunk(prepared):
    readers, plan, tokenizer = prepared
    read = dict(plan.start_rows)
    for step in range(plan.steps):
        for row in rows_of_step(readers, plan, tokenizer, step):
            assert row.epoch == 1 + read.get(row.source, 0) // plan.sources[row.source].rows
            read[row.source] = read.get(row.source, 0) + 1
    assert read["law"] // plan.sources["law"].rows >= 1  # an epoch ended on the way


def test_a_step_outside_the_run_is_refused(prepared):
    readers, plan, tokenizer = prepared
    with pytest.raises(IndexError, match="outside this plan"):
        list(rows_of_step(readers, plan, tokenizer, plan.steps))
    assert np.array_equal(plan.epochs_of(0)[0], plan.rows(0)[0])
