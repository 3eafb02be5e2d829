"""What is concluded from a compiled step: rooflines, warnings, money."""

import dataclasses
import json

import pytest

from cptjax.data.blend import Stage
from cptjax.models.config import DecoderConfig
from cptjax.models.flops import flops_per_token
from cptjax.models.numerics import Numerics
from cptjax.planning.chips import CHIPS
from cptjax.planning.collectives import Collective, Loop
from cptjax.planning.compiling import Program
from cptjax.planning.described import Plan, describe
from cptjax.planning.estimate import EFFICIENCY, crosses_slices, estimate_step, recomputed_per_token
from cptjax.planning.topology import Topology
from cptjax.planning.warnings import axes_of, in_layers, warnings_of
from cptjax.sharding.mesh import build_mesh
from cptjax.training.learning_rate import LearningRate, Segment
from cptjax.training.outline import Outline
from cptjax.training.run import Run
from cptjax.training.schedule import Phase, Schedule
from cptjax.training.start import Random

MODEL = DecoderConfig(vocabulary=1024, hidden=1024, layers=4, heads=8, kv_heads=8, head_dim=128, mlp=4096)


@pytest.fixture(scope="module")
def outline() -> Outline:
    run = Run(
        output_dir="",
        start=Random(MODEL, "llama", ""),
        sources={},
        stages=[Stage("all", {"a": 1.0})],
        schedule=Schedule(1e-3, "peak", (Phase("hold"),)),
        tokens=1e6,
        batch_tokens=8 * 512,
        sequence_length=512,
        numerics=Numerics(remat="full"),
    )
    rate = LearningRate(1e-3, (Segment("hold", 0, 100, 1e-3, 1e-3),))
    return Outline(
        run=run,
        config=MODEL,
        mesh=build_mesh({"replica": 2, "fsdp": 4}),
        steps=100,
        batch_rows=8,
        sequence_length=512,
        learning_rate=rate,
        stages=[("all", {"a": 1.0}, 100)],
        router_loss=0.0,
    )


def collective(kind="all-gather", shape="bf16[1024,4096]", size=8 << 20, group=(0, 1, 2, 3), trips=(4,), **more):
    told = {"asynchronous": False, "overlapped": False, "fused": False, "source": ""} | more
    loops = tuple(Loop("while", n) for n in trips)
    return Collective(kind, kind, size, shape, tuple(group), 8 // len(group), loops, **told)


def program(*collectives: Collective, **more) -> Program:
    told = {
        "kind": "TPU v5p",
        "devices": 8,
        "chips": 8,
        "processes": 2,
        "mesh": {"replica": 2, "fsdp": 4, "context": 1, "tensor": 1},
        "state": {"parameters": 1 << 30, "optimizer": 2 << 30},
        "whole": {},
        "activations": 1 << 30,
        "arguments": 3 << 30,
        "temporaries": 4 << 30,
        "kernels": {"attention_forward": 2, "attention_backward": 1},
    }
    return Program(**(told | more), collectives=collectives)


def test_rooflines_are_bytes_and_operations_over_what_a_chip_can_do(outline):
    chip = CHIPS["v5p"]
    gather = collective()
    found = estimate_step(outline, program(gather, dataclasses.replace(gather, overlapped=True)), chip, 1)
    each = flops_per_token(MODEL, 512)
    assert found.flops == each.training * 4096
    assert found.recomputed == each.forward * 4096  # all of the forward pass, the loss's logits included
    assert found.compute == (found.flops + found.recomputed) / (8 * 459e12)
    assert found.memory == 2 * (7 << 30) / 2765e9
    sent = 4 * (8 << 20) * 3 / 4
    assert found.interconnect == pytest.approx(2 * sent / 600e9)
    assert found.exposed == pytest.approx(sent / 200e9)
    assert found.low == max(found.compute, found.memory, found.interconnect)
    assert found.high == found.low / EFFICIENCY + found.exposed


def test_a_step_that_waits_for_memory_alone_has_a_range_too(outline):
    """Nothing unhidden, and products that are over at once: the high end is more than the low all the same."""
    hidden = dataclasses.replace(collective(), overlapped=True)
    found = estimate_step(outline, program(hidden, temporaries=1 << 40), CHIPS["v5p"], 1)
    assert found.exposed == 0 and found.low == found.memory > found.compute / EFFICIENCY
    assert found.high == found.memory / EFFICIENCY


def test_what_a_policy_keeps_is_not_computed_again():
    each = flops_per_token(MODEL, 512)
    repeated = [
        recomputed_per_token(each, remat) for remat in ("dots", "dots_without_batch", "attention_output", "full")
    ]
    assert repeated == sorted(repeated) and repeated[0] == each.head


def test_a_group_over_two_slices_goes_over_the_network(outline):
    between = collective("all-reduce", group=(0, 4), trips=())
    assert crosses_slices(between, 8, 2) and not crosses_slices(collective(), 8, 2)
    slow = estimate_step(outline, program(between), CHIPS["v5p"], 2)
    fast = estimate_step(outline, program(between), CHIPS["v5p"], 1)
    assert slow.exposed == pytest.approx(fast.exposed * 200e9 / (50e9 / 8))


def test_over_a_network_of_which_nothing_is_published_no_time_is_estimated(outline):
    between = program(collective("all-reduce", group=(0, 4), trips=()), kind="TPU v4")
    chip = CHIPS["v4"]
    assert estimate_step(outline, between, chip, 1) is not None
    found = estimate_step(outline, between, chip, 2)
    plan = Plan(outline, between, Topology("v4", "2x2x1", 2), chip, found, (3.2, "then"))
    assert found is None and plan.to_json()["step_seconds"] is None
    assert any("nothing is published of v4's network between slices" in each for each in plan.warnings)
    assert any("no estimate" in line for line in describe(plan))


def test_the_axes_of_a_group_are_those_that_its_devices_differ_in():
    mesh = {"replica": 2, "fsdp": 4, "context": 1, "tensor": 1}
    assert axes_of(collective(), mesh) == ("fsdp",)
    assert axes_of(collective(group=(0, 4)), mesh) == ("replica",)
    assert axes_of(collective(group=range(8)), mesh) == ("replica", "fsdp")


@pytest.mark.parametrize(
    "found, said",
    [
        (program(collective("all-reduce")), "all-reduce of whole weights in the layer loop"),
        (program(collective("all-reduce", trips=())), "all-reduce of whole weights outside the layer loop"),
        (program(collective()), "all-gather in the layer loop with no work beside it"),
        (program(whole={"embedding.table": 64 << 20}), "embedding.table is whole on every device: 67.1 MB"),
        (program(arguments=4 << 30), "33% more than its shapes"),
        (program(temporaries=90 << 30), "97% of a device's memory is used"),
        (program(temporaries=96 << 30), "does NOT fit: 103% of a device's memory"),
        (program(kernels={}), "no kernel for attention is in the program"),
        (
            program(mesh={"replica": 1, "fsdp": 1, "context": 1, "tensor": 3}, devices=3),
            "8 heads are not cut by the mesh's tensor axis (3 ways)",
        ),
    ],
)
def test_each_thing_to_regret_is_said(outline, found, said):
    warnings = warnings_of(found, outline, CHIPS["v5p"].hbm_bytes)
    assert any(said in each for each in warnings), warnings


def test_a_kernel_for_attention_is_not_missed_where_there_is_one(outline):
    for name in ("attention_forward", "splash_mha_fwd_segmented_residuals"):
        warnings = warnings_of(program(kernels={name: 2}), outline, CHIPS["v5p"].hbm_bytes)
        assert not any("kernel for attention" in each for each in warnings)


def test_the_largest_is_the_one_with_the_most_bytes(outline):
    small = collective(shape="bf16[1024,1024]", size=2 << 20)
    [said] = warnings_of(program(small, collective()), outline, None)
    assert "2 all-gather" in said and "(the largest bf16[1024,4096])" in said


@pytest.mark.parametrize(
    "accumulation, trips, inside",
    [(1, (4,), True), (4, (4,), False), (4, (4, 4), True), (2, (2, 4), True), (2, (2,), False), (4, (4, 25), False)],
)
def test_the_loop_over_slices_of_the_batch_is_not_that_of_the_layers(outline, accumulation, trips, inside):
    """Of four layers, also where there are four slices."""
    run = dataclasses.replace(outline.run, accumulation=accumulation)
    assert in_layers(collective(trips=trips), dataclasses.replace(outline, run=run)) is inside


@pytest.mark.parametrize(
    "fine",
    [
        collective(overlapped=True, asynchronous=True),
        collective("all-reduce", group=(0, 4)),  # a part of a weight, over replicas
        collective("all-reduce", "f32[1024]", 4096),
        collective("reduce-scatter"),
    ],
)
def test_what_must_be_sent_is_no_warning(outline, fine):
    assert warnings_of(program(fine), outline, CHIPS["v5p"].hbm_bytes) == []


def test_memory_by_kind_adds_up_and_a_run_costs_its_chip_hours(outline):
    found = program(collective())
    chip = CHIPS["v5p"]
    plan = Plan(outline, found, Topology("v5p", "2x2x2"), chip, estimate_step(outline, found, chip, 1), (4.2, "then"))
    written = plan.to_json()
    assert sum(plan.memory.values()) == written["hbm_bytes"]["total"] == 7 << 30
    assert written["chips"] == 8 and written["step_seconds"]["low"] < written["step_seconds"]["high"]
    assert written["chip_hours"]["low"] == pytest.approx(written["step_seconds"]["low"] * 100 * 8 / 3600)
    assert written["dollars"]["high"] == pytest.approx(4.2 * written["chip_hours"]["high"])
    assert [each["in_layer_loop"] for each in written["collectives"]] == [True]
    sent = 4 * (8 << 20) * 3 / 4
    assert written["sent_bytes"] == dict.fromkeys(("all", "in_layers", "exposed", "exposed_in_layers"), sent)
    hidden = program(collective(overlapped=True), collective("all-reduce", group=(0, 4), trips=()))
    assert dataclasses.replace(plan, program=hidden).to_json()["sent_bytes"] == {
        "all": sent + (8 << 20),
        "in_layers": sent,
        "exposed": 8 << 20,
        "exposed_in_layers": 0.0,
    }
    assert any(line.startswith("price") and "then" in line for line in describe(plan))


def test_a_program_is_the_same_after_json():
    found = program(collective(), seconds=1.5)
    assert Program.from_json(json.loads(json.dumps(found.to_json()))) == found
