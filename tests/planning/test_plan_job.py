"""The job `plan` as a command: on the devices here, and (slow) compiled for TPUs that are not."""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absent import absent

from cptjax.main import main

ROOT = Path(__file__).parents[2]
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
SMALL = ["--gin.TRAIN_TOKENS=1e6", "--gin.SEQUENCE_LENGTH=64", "--gin.BATCH_TOKENS=2048"]
RECIPE = "--gin_file=gin/recipes/reuse.gin"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    ours = ("JAX_COMPILATION_CACHE_DIR", "LIBTPU_INIT_ARGS")
    settings = {name: value for name, value in os.environ.items() if name not in ours} | environment
    settings["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "cptjax.main", RECIPE, *arguments]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint's config.json, and nothing else of it."""
    path = tmp_path_factory.mktemp("llama")
    (path / "config.json").write_text(json.dumps(LLAMA))
    return path


@pytest.fixture(scope="module")
def planned(folder, tmp_path_factory) -> tuple[str, dict, str]:
    """What is printed, plan.json and the page of a plan for eight devices here, with neither weights nor text."""
    output = tmp_path_factory.mktemp("plan")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = main(
            [
                RECIPE,
                "--gin_file=gin/jobs/plan.gin",
                *SMALL,
                f"--gin.HF_CHECKPOINT='{folder}'",
                f"--gin.OUTPUT_DIR='{output}'",
                f"--gin.HLO='{output / 'step.txt'}'",
                '--gin.MESH={"replica": 2, "fsdp": 4}',
            ]
        )
    assert code == 0
    assert (output / "step.txt").read_text().startswith("HloModule")
    return printed.getvalue(), json.loads((output / "plan.json").read_text()), (output / "report.html").read_text()


def test_the_step_of_a_folder_with_only_a_config_is_planned(planned):
    printed, plan, page = planned
    assert plan["devices"] == plan["chips"] == 8
    assert plan["mesh"] == {"replica": 2, "fsdp": 4, "context": 1, "tensor": 1}
    assert plan["steps"] == 489 and plan["batch_tokens"] == 2048 and plan["topology"] is None
    memory = plan["hbm_bytes"]
    weights = 2 * 512 * 128 + 3 * (128 * 128 * 2 + 2 * 128 * 64 + 3 * 128 * 256)
    assert memory["parameters"] == pytest.approx(weights * 4 / 4, rel=0.02)  # norms are whole
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.01)
    assert memory["activations"] > 0
    assert memory["total"] == sum(size for name, size in memory.items() if name not in ("total", "capacity"))
    gathers = [each for each in plan["collectives"] if each["kind"] == "all-gather" and each["in_layer_loop"]]
    assert gathers and all("fsdp" in each["axes"] and each["times"] == 3 for each in gathers)
    assert "collectives of a step" in printed and "A plan for the devices here" in page


def test_the_embedding_is_traded_and_never_gathered(planned):
    """Its table is 512 x 128: nothing of that size is gathered by the look-up or summed over the axis that cuts it."""
    table = 512 * 128 * 4
    outside = [each for each in planned[1]["collectives"] if not each["in_layer_loop"]]
    assert sum(each["kind"] == "all-to-all" for each in outside) == 2
    assert not [e for e in outside if e["kind"] == "all-reduce" and "fsdp" in e["axes"] and e["bytes"] >= table]
    assert not [e for e in outside if e["kind"] == "all-gather" and "take" in e["source"]]


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--gin.TOPOLOGY='v5e:9x9x9'"], ["a slice of v5e has 2 dimensions", "4x4"]),
        (["--gin.BATCH_TOKENS=2000"], ["The nearest that fits is BATCH_TOKENS = 2048"]),
        (["--gin.HF_CHECKPOINT=None"], ["plan_model.gin"]),
        (["--gin.HF_CHECKPOINT='/nowhere'"], ["no config.json in '/nowhere'"]),
        (["--gin.SLICES=0", "--gin.TOPOLOGY='v5e:4x4'"], ["SLICES"]),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_is_compiled(folder, capsys, flags, said):
    command = [RECIPE, "--gin_file=gin/jobs/plan.gin", *SMALL, f"--gin.HF_CHECKPOINT='{folder}'", *flags]
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert all(each in printed for each in said), printed


@pytest.fixture(scope="module")
def libtpu() -> None:
    if importlib.util.find_spec("libtpu") is None:
        absent("libtpu is not installed; pip install -e .[aot] brings it", "CPTJAX_REQUIRE_LIBTPU")


def test_without_libtpu_it_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = [RECIPE, "--gin_file=gin/jobs/plan.gin", *SMALL, f"--gin.HF_CHECKPOINT='{folder}'"]
    assert main([*command, "--gin.TOPOLOGY='v5e:2x2'"]) == 2
    assert 'pip install "cptjax[aot]"' in capsys.readouterr().err


WIDE = ["--gin.DecoderConfig.layers=2", "--gin.DecoderConfig.hidden=512", "--gin.DecoderConfig.mlp=1024"]
WIDE += ["--gin.DecoderConfig.heads=4", "--gin.DecoderConfig.kv_heads=4", "--gin.DecoderConfig.head_dim=128"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "topology, chips, devices, mesh",
    [("v4:2x2x1", 4, 4, '{"fsdp": 2, "replica": 2}'), ("tpu7x:2x2x1", 4, 8, '{"fsdp": 8}')],
)
def test_a_small_step_is_compiled_for_tpus_that_are_not_here(libtpu, tmp_path, topology, chips, devices, mesh):
    done = run(
        "--gin_file=gin/jobs/plan_model.gin",
        *SMALL,
        *WIDE,
        "--gin.MODEL='llama_1m'",
        "--gin.COMPUTE_DTYPE='bfloat16'",
        f"--gin.TOPOLOGY='{topology}'",
        f"--gin.MESH={mesh}",
        f"--gin.OUTPUT_DIR='{tmp_path}'",
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["chips"], plan["devices"]) == (chips, devices)
    assert set(plan["kernels"]) == {"attention_forward", "attention_backward"}
    assert plan["step_seconds"]["low"] < plan["step_seconds"]["high"] and plan["hbm_bytes"]["total"] > 0
    assert not any("whole weights" in warning for warning in plan["warnings"])


@pytest.mark.slow
def test_between_blocks_the_tensor_axis_cuts_the_sequence(libtpu, tmp_path):
    """Blocks gather what they read and scatter what they add: no sum of whole rows over `tensor` is left in the layers."""
    done = run(
        "--gin_file=gin/jobs/plan_model.gin",
        *SMALL,
        *WIDE,
        "--gin.MODEL='llama_1m'",
        "--gin.COMPUTE_DTYPE='bfloat16'",
        "--gin.TOPOLOGY='v5e:2x2'",
        '--gin.MESH={"tensor": 4}',
        f"--gin.OUTPUT_DIR='{tmp_path}'",
    )
    assert done.returncode == 0, done.stderr
    layers = [each for each in json.loads((tmp_path / "plan.json").read_text())["collectives"] if each["in_layer_loop"]]
    assert layers and all(each["axes"] == ["tensor"] for each in layers)
    sums = [each for each in layers if each["kind"] == "all-reduce"]
    assert all(each["bytes"] < 2 * 512 * 2 * 32 for each in sums), sums  # gradients of norms, not of the stream
    assert {"all-gather", "reduce-scatter"} <= {each["kind"] for each in layers}


@pytest.mark.slow
def test_a_search_tries_flags_on_its_best_mesh_and_passes_over_what_is_refused(libtpu, tmp_path):
    sets = {"v5e": [{"xla_no_flag_of_any_compiler": True}]}
    done = run(
        "--gin_file=gin/jobs/plan_model.gin",
        *SMALL,
        "--gin.MODEL='llama_260k'",
        "--gin.SEARCH=1",
        "--gin.SEARCH_TOPOLOGIES=['v5e:2x2', 'v5e:9x9']",
        f"--gin.FLAG_SETS={sets}",
        f"--gin.OUTPUT_DIR='{tmp_path}'",
    )
    assert done.returncode == 0, done.stderr
    assert "COMPILER_FLAGS: libtpu refuses xla_no_flag_of_any_compiler" in done.stdout
    assert "v5e:9x9: no mesh fits" in done.stdout and "v5e:2x2, 4 chips" in done.stdout.partition("the best of each")[2]
    plans = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("v5e_2x2/candidates/*/plan.json")}
    assert set(plans) == {"00"} and plans["00"]["compiler_flags"] == {}
    winner = (tmp_path / "v5e_2x2" / "search.gin").read_text()
    assert "COMPILER_FLAGS = {}" in winner and 'TOPOLOGY = "v5e:2x2"' in winner
