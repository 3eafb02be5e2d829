"""Estimated work: a kernel's parts, how often rows execute them, and what of a row's square its documents leave."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptjax.benchmarks.attention import documents, picture, table
from cptjax.benchmarks.attention.compare import Memory, Work, plan_of
from cptjax.benchmarks.attention.documents import Areas, areas, equal_documents, packed_rows
from cptjax.benchmarks.attention.parts import Parts, from_json, parts, to_json
from cptjax.benchmarks.attention.programs import has_square
from cptjax.benchmarks.attention.work import Executed, cycles, plan_executes, splash_executes
from cptjax.benchmarks.bundles import KERNEL, LOOP, SKIPPED, Region
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.kernels.attention.block_sizes import BlockSizes


def kernel(*inside: Region) -> Region:
    """A kernel of 2000 bundles with one grid loop, [100, 1900), that a first step may skip but for 50 bundles."""
    step = Region(SKIPPED, 150, 1900, inside=list(inside))
    return Region(KERNEL, 0, 2000, inside=[Region(LOOP, 100, 1900, inside=[step])])


BEGIN, END = Region(SKIPPED, 200, 300), Region(SKIPPED, 1700, 1800)
BLOCK = Region(SKIPPED, 400, 1500, own_products=8)


def test_a_kernels_parts_are_told_apart():
    found = parts(kernel(BEGIN, BLOCK, END))
    assert found == Parts(step=1800 - 100 - 1100 - 100, begin=100, end=100, blocks=(1100,))
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


def test_loops_in_conditions_are_blocks_and_small_conditions_belong_to_the_step():
    loops = [
        Region(SKIPPED, start, start + 210, inside=[Region(LOOP, start + 4, start + 204, own_products=2)])
        for start in (400, 700)
    ]
    between, small = Region(SKIPPED, 620, 690), Region(SKIPPED, 1000, 1010)
    found = parts(kernel(BEGIN, loops[0], between, loops[1], small, END))
    assert found == Parts(step=1800 - 100 - 400 - 100, begin=100, end=100, blocks=(200, 200))


def test_a_condition_of_the_grid_itself_belongs_to_the_step():
    copies = Region(SKIPPED, 110, 140 + 9)
    inner = Region(SKIPPED, 150, 1900, inside=[BEGIN, BLOCK, END])
    whole = Region(KERNEL, 0, 2000, inside=[Region(LOOP, 100, 1900, inside=[copies, inner])])
    assert parts(whole) == parts(kernel(BEGIN, BLOCK, END))


@pytest.mark.parametrize(
    "other",
    [
        Region(KERNEL, 0, 2000),
        kernel(BEGIN),
        Region(KERNEL, 0, 2000, inside=[BLOCK]),
        kernel(Region(LOOP, 400, 1500, own_products=1, inside=[Region(LOOP, 500, 600, own_products=1)])),
        kernel(Region(LOOP, 400, 1500, inside=[Region(LOOP, 500, 600, own_products=1)])),
    ],
)
def test_a_kernel_made_otherwise_is_refused_with_its_outline(other):
    with pytest.raises(CptjaxError, match="kernel 0x0"):
        parts(other)


def test_cycles_are_bundles_times_executions():
    executed = Executed(steps=100, begins=10, ends=9, blocks=(3, 5))
    assert cycles(Parts(7, 20, 30, (1000, 2000)), executed) == 3 * 1000 + 5 * 2000 + 100 * 7 + 10 * 20 + 9 * 30
    with pytest.raises(ValueError):
        cycles(Parts(7, 20, 30, (1000,)), executed)


@given(st.sampled_from([128, 256, 512]), st.sampled_from([128, 256, 512]), st.booleans())
def test_splash_executes_every_block_before_the_diagonal(queries, keys, backward):
    length, heads = 2048, 3
    reach = np.tril(np.ones((length, length), bool)).reshape(length // queries, queries, length // keys, keys)
    visited = int(reach.any((1, 3)).sum())
    found = splash_executes(length, heads, queries, keys, backward)
    assert found.blocks == (heads * visited,)
    assert found.steps == heads * (length // queries) * (length // keys)
    assert found.begins == found.ends == heads * length // (keys if backward else queries)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_areas_are_what_counting_every_pair_finds(sizes):
    length = 1024
    row = np.repeat(np.arange(1, len(sizes) + 1), sizes)[:length]
    row = np.concatenate([row, np.zeros(length - len(row), row.dtype)])[None].astype(np.int32)
    seen = (row[0][:, None] == row[0]) & np.tril(np.ones((length, length), bool))
    blocks = seen.reshape(8, 128, 8, 128).any((1, 3)).sum()
    found = areas(row, 128)
    causal = length * (length + 1) / 2
    assert found.elements == pytest.approx(seen.sum() / causal)
    assert found.blocks == pytest.approx(blocks / 36)
    assert found.visited == pytest.approx(blocks * 128**2 / causal)


def test_our_plan_visits_the_blocks_that_areas_count():
    rows = np.concatenate([equal_documents(2048, 16), packed_rows([700, 300, 900, 100, 1500], 2048, 1)])
    plan = plan_of(rows, 64, BlockSizes(256, 256, 2048, 256, 256, 2048))
    heads, least = 3, areas(rows, 256).blocks * len(rows) * 36
    assert sum(plan_executes(plan.forward, heads).blocks) == pytest.approx(heads * least)
    assert sum(plan_executes(plan.backward[0], heads).blocks) == pytest.approx(heads * least)
    assert plan_executes(plan.forward, heads).begins == heads * len(rows) * 8


def test_equal_documents_of_512_leave_a_sixteenth():
    found = areas(equal_documents(8192, 16))
    assert found.elements == pytest.approx(1 / 16, rel=2e-3) and found.blocks == pytest.approx(16 / 136)
    with pytest.raises(ConfigurationError, match="are not 7 equal documents"):
        equal_documents(8192, 7)


def test_rows_are_packed_whole_and_taken_evenly():
    rows = packed_rows([100] * 40 + [30] * 40, 256, 5)
    assert rows.shape == (5, 256) and set(np.unique(rows)) <= set(range(9))
    assert all(row[0] == 1 for row in rows)


def test_lengths_of_documents_are_counted_once(tmp_path, monkeypatch):
    text = tmp_path / "words.jsonl"
    text.write_text("".join(json.dumps({"text": "one two three " * n}) + "\n" for n in (1, 2, 30)))
    monkeypatch.setattr(documents, "_VOCABULARY", 300)
    first = documents.document_lengths(str(text), tmp_path / "kept")
    assert len(first) == 3 and 1 < first[0] < first[1] < first[2]
    monkeypatch.setattr(documents, "train_bpe", None)
    assert documents.document_lengths(str(text), tmp_path / "kept") == first


@pytest.mark.parametrize(
    "text, square",
    [
        ("f32[8,4096,4096]{2,1,0}", True),
        ("bf16[4096,4096]{1,0}", True),
        ("f32[4096,128]", False),
        ("s32[14096,4096]", False),
    ],
)
def test_a_square_is_found_in_a_programs_text(text, square):
    assert has_square(f"%fusion = {text} fusion(%a)", 4096) == square


SQUARES = {"v4": True, "v5e": False}
AREAS = Areas(0.5, 0.6, 0.62)
WORK = [
    Work("v5e", "law", backward, 1000, ours, (1024, 1024, 512), (512, 512, 4096), AREAS, 0.713)
    for backward, ours in ((False, 700), (True, 800))
]


def test_the_table_marks_what_is_not_as_required():
    memory = [Memory("v4", 4096, 64, False, 2 << 20, 1 << 20), Memory("v4", 8192, 64, True, "no room", 1)]
    lines = table.page(WORK, memory, SQUARES, {"ratio_forward": 1.8, "ratio_gradients": 1.2})
    assert "| 0.700 |" in lines[2] and "| **0.800** |" in lines[2] and "1024 x 1024 x 512" in lines[2]
    assert lines[4].startswith("| TPU | head_dim | 4096, forward | 8192, gradients |")
    assert "2.0 / 1.0" in lines[6] and "refused / 0.0" in lines[6]
    assert lines[8] == "Gradients at length 8192: v4: an array of 8192 x 8192, v5e: no array of 8192 x 8192."
    found = table.summary(WORK, memory, SQUARES, {"ratio_forward": 1.8, "ratio_gradients": 1.2})
    assert found["law, forward"] == 0.7
    missed = found["not as required"].split("; ")
    assert len(missed) == 5 and missed[0].startswith("v5e, law, backward") and missed[-1].startswith("the reference")
    assert table.summary(WORK[:1], [], {"v4": False}, {})["not as required"] == "nothing"


def test_the_picture_says_its_numbers():
    drawn = picture.draw_work(WORK)
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"') and drawn == picture.draw_work(WORK)
    for said in ("0.70", "0.80", "allowed", "law", "backward", "v5e"):
        assert said in drawn
