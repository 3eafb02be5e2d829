"""What a compiled program sends: counted in programs that JAX compiled here, and in lines as libtpu writes them."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cptjax.planning.collective_table import exposed, grouped
from cptjax.planning.collectives import collectives_of
from cptjax.sharding.mesh import build_mesh

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def looped() -> str:
    """Each of 5 turns gathers a weight over 4 devices, and sums a product over 2; before them one is scattered."""
    mesh = build_mesh({"replica": 2, "fsdp": 4})
    spec = PartitionSpec

    def local(x, weight):
        x = jax.lax.psum_scatter(x, "fsdp", scatter_dimension=1, tiled=True)

        def turn(x, part):
            whole = jax.lax.all_gather(part, "fsdp", axis=0, tiled=True)
            return jax.lax.psum(jnp.sin(x @ whole), "replica"), None

        return jax.lax.scan(turn, x, weight)[0]

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(spec(), spec(None, "fsdp", None)), out_specs=spec(), check_vma=False
    )
    x = jax.ShapeDtypeStruct((8, 64), jnp.float32, sharding=NamedSharding(mesh, spec()))
    weight = jax.ShapeDtypeStruct((5, 16, 16), jnp.float32, sharding=NamedSharding(mesh, spec(None, "fsdp", None)))
    return jax.jit(mapped).lower(x, weight).compile().as_text()


def test_loops_groups_and_bytes_of_a_compiled_program(looped):
    found = {each.kind: each for each in collectives_of(looped)}
    assert set(found) == {"reduce-scatter", "all-gather", "all-reduce"}
    gather, scatter, reduce = found["all-gather"], found["reduce-scatter"], found["all-reduce"]
    assert [loop.trips for loop in gather.loops] == [5] and gather.times == 5
    assert scatter.loops == () and scatter.times == 1
    assert gather.first_group == (0, 1, 2, 3) and gather.groups == 2
    assert reduce.first_group == (0, 4) and reduce.groups == 4
    assert gather.bytes == 16 * 16 * 4 and gather.sent == gather.bytes * 3 / 4
    assert scatter.bytes == 8 * 64 * 4 and scatter.sent == scatter.bytes * 3 / 4
    assert reduce.bytes == 8 * 16 * 4 and reduce.sent == reduce.bytes  # of two devices: there and back, half each
    assert not any(each.asynchronous or each.overlapped for each in found.values())
    assert exposed(found.values()) == 5 * (gather.sent + reduce.sent) + scatter.sent


def test_what_a_kernel_says_of_itself_over_several_lines_ends_no_computation(looped):
    """As splash attention does, in each of the loop's computations before anything else that stands there."""
    said = """  %kernel.1 = bf16[8,128]{1,0} custom-call(), frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 1024}"
}}, metadata={op_name="jit(f)/pallas_call"}
"""
    lines = [
        line + "\n" + said if line.endswith(" {") and not line.startswith(" ") else line + "\n"
        for line in looped.splitlines()
    ]
    assert "".join(lines).count("xprof_metadata") > 2
    assert [each.sent for each in collectives_of("".join(lines))] == [each.sent for each in collectives_of(looped)]


def test_the_script_counts_any_dump(looped, tmp_path):
    dump = tmp_path / "step.txt"
    dump.write_text(looped)
    script = [sys.executable, ROOT / "tests/planning/collectives_of.py", dump]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert "3 collectives, 3 of them synchronous" in printed
    assert [line.split()[:3] for line in printed.splitlines()[2:5]] == [
        ["all-gather", "5", "4"],
        ["all-reduce", "5", "2"],
        ["reduce-scatter", "outside", "4"],
    ]


# As libtpu writes it, with attributes that are not read left out.
TPU = Path(__file__).with_name("libtpu.hlo").read_text(encoding="utf-8")


def test_an_asynchronous_collective_in_libtpus_fusions_is_counted_once():
    found = [each for each in collectives_of(TPU) if each.kind == "all-gather"]
    assert len(found) == 1 and found[0].overlapped and found[0].asynchronous and found[0].fused
    assert found[0].bytes == 1024 * 32 * 2 and found[0].group == 16
    assert found[0].times == 32, "the trips are the constant in the loop's condition"
    idle = TPU.replace("calls=%async_collective_fusion.2", "calls=%something_else")
    idle = idle.replace("%fusion.2 = (f32[8,32]{1,0}, u32[]) fusion(", "%fusion.2 = (f32[8,32]{1,0}, u32[]) bitcast(")
    [waited] = [each for each in collectives_of(idle) if each.kind == "all-gather"]
    assert waited.asynchronous and not waited.overlapped


# What libtpu writes where SparseCores send: a start without arrays, an update that gives them, and what waits.
SPARSE_CORES = """HloModule jit_step, is_scheduled=true, replica_count=1, num_partitions=16

%called_computation.1 (param_0: bf16[64,32]) -> bf16[1024,32] {
  %param_0 = bf16[64,32]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[1024,32]{1,0} all-gather(%param_0), channel_id=1, replica_groups=mesh['a'=16] {'a'}, dimensions={0}
}, execution_thread="sparsecore"

ENTRY %main (Arg_0: bf16[64,32]) -> bf16[1024,32] {
  %Arg_0 = bf16[64,32]{1,0} parameter(0)
  %gather.call-start = ((), (), (s32[1]{0})) call-start(), async_execution_thread="sparsecore", to_apply=%called_computation.1
  BEFORE
  %gather.call-update = ((bf16[64,32]{1,0}), bf16[1024,32]{1,0}) call-update(%gather.call-start, %Arg_0)
  AFTER
  ROOT %gather.call-done = bf16[1024,32]{1,0} call-done(%gather.call-update)
}
"""


@pytest.mark.parametrize("place", ["BEFORE", "AFTER"])
def test_what_sparse_cores_send_is_hidden_by_work_after_they_are_given_it(place):
    work = "%fusion.1 = f32[8,8]{1,0} fusion(%Arg_0), kind=kLoop, calls=%something"
    text = SPARSE_CORES.replace(place, work).replace("BEFORE", "").replace("AFTER", "")
    [gather] = collectives_of(text)
    assert gather.kind == "all-gather" and gather.group == 16 and gather.bytes == 1024 * 32 * 2
    assert gather.asynchronous and gather.overlapped == (place == "AFTER")


def test_a_start_whose_done_comes_next_overlaps_nothing():
    [permute] = [each for each in collectives_of(TPU) if each.kind == "collective-permute"]
    assert permute.asynchronous and not permute.overlapped
    assert permute.first_group == (0, 1, 2, 3) and permute.bytes == permute.sent == 64 * 32 * 2


def test_libtpus_fused_all_reduce_and_slice_is_a_reduce_scatter():
    [scatter] = [each for each in collectives_of(TPU) if each.kind == "reduce-scatter"]
    assert scatter.fused and scatter.bytes == 1024 * 32 * 4 and scatter.first_group == (0, 4, 8, 12)


def test_a_tuple_is_the_sum_of_its_arrays_and_groups_are_transposed():
    [outside] = [each for each in collectives_of(TPU) if each.kind == "all-reduce"]
    assert outside.bytes == 4 + 2 * 8 * 4 and outside.dtype_shape == "f32[2,8]"  # the largest, not the first
    assert outside.first_group == (0, 4, 8, 12) and outside.source == "jit(step)/sum"


@pytest.mark.parametrize(
    "opcode, type_, size, largest",
    [
        ("all-gather", "(bf16[4,8], bf16[16,8])", 16 * 8 * 2, "bf16[16,8]"),
        (
            "all-gather",
            "((bf16[4,8], f32[2,8]), (bf16[16,8], f32[8,8]), u32[], u32[]{:S(2)})",
            16 * 8 * 2 + 8 * 8 * 4,
            "bf16[16,8]",
        ),
        ("all-reduce", "(f32[4], f32[8])", 48, "f32[8]"),  # no operands stand in this one
        ("reduce-scatter", "((f32[16,8], f32[8]), (f32[4,8], f32[2]), u32[])", (16 * 8 + 8) * 4, "f32[4,8]"),
        ("collective-permute", "(u32[], u32[], u32[], u32[])", 4, "u32[]"),
    ],
)
def test_of_a_start_the_results_are_counted_and_not_what_it_was_given(opcode, type_, size, largest):
    old = next(line for line in TPU.splitlines() if "%all-reduce.5 = " in line)
    new = f"  %started = {type_} {opcode}-start(%Arg_0), replica_groups=[4,4]<=[16]"
    if opcode == "collective-permute":
        new = new.replace("replica_groups=[4,4]<=[16]", "source_target_pairs={{0,1}}")
    [found] = [each for each in collectives_of(TPU.replace(old, new)) if each.name == "started"]
    assert (found.kind, found.bytes, found.dtype_shape) == (opcode, size, largest)


@pytest.mark.parametrize("behind", [', to_apply=%add, metadata={op_name="jit(step)/sum"}', ""])
@pytest.mark.parametrize(
    "written, group, groups",
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", (0, 1), 4),
        ("[2,4]<=[8]", (0, 1, 2, 3), 2),
        ("[4,2]<=[2,4]T(1,0)", (0, 4), 4),
        ("mesh['a'=2,'b'=4] {'b'}", (0, 1, 2, 3), 2),
        ("mesh['a'=2,'b'=4] {'a'}", (0, 4), 4),
        ("mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8)), 1),
        ("mesh['a'=8] {'a':(2)2}", (0, 2), 4),
        ("{}", tuple(range(16)), 1),
    ],
)
def test_every_way_to_write_groups(written, group, groups, behind):
    old = '[4,4]<=[4,4]T(1,0), to_apply=%add, metadata={op_name="jit(step)/sum"}'
    assert old in TPU
    text = TPU.replace(old, written + behind)
    [found] = [each for each in collectives_of(text) if each.kind == "all-reduce"]
    assert (found.first_group, found.groups) == (group, groups)


def test_those_alike_are_one_line_of_the_table():
    found = collectives_of(TPU)
    assert sum(group.number for group in grouped(found)) == len(found) == 4
    assert grouped(found)[0].kind == "reduce-scatter"


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no HLO text"):
        collectives_of("a poem\n")
