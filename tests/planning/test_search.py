"""Which plans are worth compiling, and which of the compiled ones is the best."""

import dataclasses
import math

import gin
import pytest
from etils import epath
from shardings import run_of

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.model import abstract_weights
from cptjax.planning.candidates import FITS, Candidate, candidates, meshes
from cptjax.planning.planned_run import planned_model, state_bytes
from cptjax.planning.searching import Searching, compile_candidates, ranked, search_all, winner_gin
from cptjax.planning.topology import Topology, find_topology
from cptjax.training.optimizer import Adafactor, AdamW, Lion
from cptjax.training.run import merged_flags

LLAMA_8B = DecoderConfig(vocabulary=128256, hidden=4096, layers=32, heads=32, kv_heads=8, head_dim=128, mlp=14336)
STATE = 12 * 8.03e9  # weights and two moments in float32


@pytest.mark.parametrize("name, slices", [("v5p:8x8x8", 1), ("v5p:4x8x8", 2), ("v6e:8x8", 1), ("tpu7x:4x4x4", 1)])
def test_every_mesh_cuts_everything_evenly_and_none_spans_a_torus(name, slices):
    topology = find_topology(name, slices)
    found = list(meshes(LLAMA_8B, topology, 1024, 4096))
    assert found
    for mesh in found:
        assert math.prod(mesh.values()) == topology.devices
        assert 1024 % (mesh["replica"] * mesh["fsdp"]) == 0 and mesh["replica"] % slices == 0
        assert LLAMA_8B.heads % mesh["tensor"] == 0 and 4096 % (2 * mesh["context"]) == 0
        assert topology.chip.axes == 2 or mesh["fsdp"] < topology.devices // slices


def test_what_does_not_fit_on_paper_is_not_compiled():
    small, large = (candidates(LLAMA_8B, Topology("v5e", shape), 256, 4096, STATE) for shape in ("4x4", "16x16"))
    assert small and all(each.hbm <= FITS * 15.75 * 2**30 for each in (*small, *large))
    assert all(each.mesh["fsdp"] * each.mesh["tensor"] >= 8 for each in small)  # 12 bytes of 8B parameters on 16 GiB
    assert [each.seconds for each in large] == sorted(each.seconds for each in large)
    assert not candidates(LLAMA_8B, Topology("v5e", "2x2"), 256, 4096, STATE)
    lighter = candidates(LLAMA_8B, Topology("v5e", "4x4"), 256, 4096, STATE * 2 / 3)  # moments in bfloat16
    assert (
        lighter[0].seconds < small[0].seconds
    )  # what is free is spent on fewer slices of the batch, gathered for less often


@pytest.mark.parametrize(
    ("optimizer", "average", "of_each"),
    [
        (AdamW(), None, 12),
        (AdamW(moments="bfloat16"), None, 8),
        (Lion(), None, 8),
        (AdamW(), 0.999, 16),
        (Adafactor(), None, 4),
    ],
)
def test_the_state_on_paper_is_what_the_optimizer_keeps(optimizer, average, of_each):
    run = dataclasses.replace(run_of("reuse_nemotron_15b"), optimizer=optimizer, average=average)
    config = planned_model(run, None)
    parameters = sum(math.prod(spec.shape) for spec in abstract_weights(config).values())
    assert state_bytes(run, config) == pytest.approx(
        of_each * parameters, rel=0.01
    )  # Adafactor's rows and columns are little


def test_the_papers_batch_is_cut_by_context_or_tensor_on_512_chips():
    """1,152 rows have 7 factors of 2, 512 chips 9: two of them must be cut elsewhere."""
    run = run_of("reuse_nemotron_15b")
    config = planned_model(run, None)
    found = candidates(config, find_topology(run.topology), 1152, 4096, state_bytes(run, config))
    assert found and all(each.mesh["context"] * each.mesh["tensor"] >= 4 for each in found)
    assert run.mesh in [{axis: size for axis, size in each.mesh.items() if size > 1} for each in found]


def plan(sent: float, total: int, capacity: float | None = None) -> dict:
    return {
        "topology": "v6e:8x8",
        "slices": 1,
        "sent_bytes": {"exposed": sent},
        "hbm_bytes": {"total": total, "capacity": capacity},
        "compiler_flags": {"xla_tpu_some": True},
        "warnings": ["mind this"],
    }


ONE = Candidate({"replica": 2, "fsdp": 32, "context": 1, "tensor": 1}, "full", 4, 0.0, 0.0)


def test_the_best_sends_least_with_no_work_beside_it_and_leaves_a_tenth_of_the_memory_free():
    full, more, larger, best = plan(1.0, 91, 100), plan(3.0, 10, 100), plan(2.0, 90, 100), plan(2.0, 80, 100)
    assert [each for _, each in ranked([(ONE, each) for each in (full, more, larger, best)])] == [best, larger, more]
    assert ranked([(ONE, plan(1.0, 91))])  # where nobody knows how much there is
    with pytest.raises(CptjaxError, match="none of the candidates that compile leaves a tenth of the memory free"):
        ranked([(ONE, full), (ONE, plan(1.0, 103, 100))])


def test_the_winner_is_a_gin_file_that_goes_after_its_recipe(tmp_path):
    file = tmp_path / "search.gin"
    file.write_text(winner_gin(ONE, plan(10.0, 1), "the command"))
    assert "# warning: mind this" in file.read_text()
    files = ["gin/recipes/reuse_llama_8b.gin", str(file), "gin/jobs/plan.gin"]
    configured = configure(parse_command([f"--gin_file={each}" for each in files]))
    gin.clear_config()
    try:
        gin.parse_config(configured.gin_text)
        from cptjax.training.run import Run

        run = gin.get_configurable(Run)()
    finally:
        gin.clear_config()
    assert run.mesh == {"replica": 2, "fsdp": 32} and run.numerics.remat == "full" and run.accumulation == 4
    assert run.topology == "v6e:8x8" and run.compiler_flags == {"xla_tpu_some": True}


@pytest.mark.slow
def test_candidates_are_compiled_and_compared_by_what_was_made_of_them(tmp_path):
    """On eight devices here: replicas alone sum whole gradients, fsdp over two of them gathers as well."""
    command = ["--gin_file=gin/recipes/reuse.gin", "--gin_file=gin/jobs/plan_model.gin", "--gin.MODEL='llama_260k'"]
    command += ["--gin.TRAIN_TOKENS=1e6", "--gin.SEQUENCE_LENGTH=64", "--gin.BATCH_TOKENS=1024"]
    one = {"context": 1, "tensor": 1}
    found = [
        Candidate({"replica": 4, "fsdp": 2, **one}, "full", 1, 0.0, 0.0),
        Candidate({"replica": 8, "fsdp": 1, **one}, "full", 2, 0.0, 0.0),
        Candidate({"replica": 1, "fsdp": 7, **one}, "full", 1, 0.0, 0.0),  # refused: there are eight
        Candidate({"replica": 4, "fsdp": 2, **one}, "full", 1, 0.0, 0.0, {"xla_tpu_of_no_device_here": True}),
    ]
    said: list[str] = []
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    results = compile_candidates(found, command, environment, 1, epath.Path(tmp_path), said.append, "step.txt", 3)
    assert [id(each) for each, _ in results] == [id(each) for each in (*found[:2], found[3])]
    assert results[2][1]["compiler_flags"] == {"xla_tpu_of_no_device_here": True}
    compiled = ranked(results[:2])
    bytes_of = [plan["sent_bytes"]["exposed"] for _, plan in compiled]
    assert bytes_of == sorted(bytes_of) and bytes_of[0] > 0
    texts = [(tmp_path / number / "step.txt").read_text() for number in ("03", "04")]
    assert texts[0] != texts[1] and all(text.startswith("HloModule") for text in texts)
    assert len(said) == 4 and "does not fit 8 device" in said[2] and "xla_tpu_of_no_device_here=True" in said[3]


def test_sets_of_flags_are_one_of_which_the_later_hold():
    some, other = {"xla_tpu_a": True, "xla_tpu_b": 1}, {"xla_tpu_b": 2}
    assert merged_flags([some, other]) == {"xla_tpu_a": True, "xla_tpu_b": 2} and merged_flags(None) == {}
    run = dataclasses.replace(run_of("reuse_nemotron_15b"), compiler_flags=(other, some))
    assert run.compiler_flags == some
    with pytest.raises(ConfigurationError, match="COMPILER_FLAGS = 'sparse'"):
        dataclasses.replace(run, compiler_flags="sparse")


def test_a_topology_that_nothing_fits_is_told_of_and_passed_over(capsys):
    run, how = run_of("reuse_nemotron_15b"), Searching(2, 1, {"v5p": [{"xla_some": True}]})
    targets = [find_topology(name) for name in ("v5e:2x2", "v5p:8x8x8")]
    search_all(run, None, targets, how, epath.Path("/nowhere"), dry_run=True)
    printed = capsys.readouterr().out
    assert "v5e:2x2: no mesh fits" in printed and "fit v5p:8x8x8 on paper; compiling 2:" in printed
    assert "then the best of them with each of 1 other sets of compiler flags" in printed
