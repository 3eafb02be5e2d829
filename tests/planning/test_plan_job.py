"""The job `plan` as a command: on the devices here, and (slow) compiled for TPUs that are not."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
SMALL = ["--gin.TRAIN_TOKENS=1e6", "--gin.SEQUENCE_LENGTH=128", "--gin.BATCH_TOKENS=4096"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    ours = ("JAX_COMPILATION_CACHE_DIR", "LIBTPU_INIT_ARGS")
    settings = {name: value for name, value in os.environ.items() if name not in ours} | environment
    settings["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "cptjax.main", "--gin_file=gin/recipes/reuse.gin", *arguments]
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
    done = run(
        "--gin_file=gin/jobs/plan.gin",
        *SMALL,
        f"--gin.HF_CHECKPOINT='{folder}'",
        f"--gin.OUTPUT_DIR='{output}'",
        f"--gin.HLO='{output / 'step.txt'}'",
        '--gin.MESH={"replica": 2, "fsdp": 4}',
    )
    assert done.returncode == 0, done.stderr
    assert (output / "step.txt").read_text().startswith("HloModule")
    return done.stdout, json.loads((output / "plan.json").read_text()), (output / "report.html").read_text()


def test_the_step_of_a_folder_with_only_a_config_is_planned(planned):
    printed, plan, page = planned
    assert plan["devices"] == plan["chips"] == 8 and plan["mesh"] == {
        "replica": 2,
        "fsdp": 4,
        "context": 1,
        "tensor": 1,
    }
    assert plan["steps"] == 245 and plan["batch_tokens"] == 4096 and plan["topology"] is None
    memory = plan["hbm_bytes"]
    weights = 2 * 512 * 128 + 3 * (128 * 128 * 2 + 2 * 128 * 64 + 3 * 128 * 256)
    assert memory["parameters"] == pytest.approx(weights * 4 / 4, rel=0.02)  # norms are whole
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.01)
    assert memory["activations"] > 0 and memory["total"] == sum(
        size for name, size in memory.items() if name not in ("total", "capacity")
    )
    assert any(each["in_layer_loop"] and each["axes"] == ["fsdp"] for each in plan["collectives"])
    assert "collectives of a step" in printed and "A plan for the devices here" in page


def test_a_run_that_cannot_be_is_refused_before_anything_is_compiled(folder):
    model = f"--gin.HF_CHECKPOINT='{folder}'"
    told = run("--gin_file=gin/jobs/plan.gin", *SMALL, model, "--gin.BATCH_TOKENS=4000", "--gin.TOPOLOGY='v5e:9x9x9'")
    assert told.returncode == 2 and "v5e" in told.stderr and "4x4" in told.stderr
    told = run("--gin_file=gin/jobs/plan.gin", *SMALL, model, "--gin.BATCH_TOKENS=4000")
    assert told.returncode == 2 and "The nearest that fits is BATCH_TOKENS = 4096" in told.stderr
    told = run("--gin_file=gin/jobs/plan.gin", *SMALL)
    assert told.returncode == 2 and "plan_model.gin" in told.stderr


@pytest.fixture(scope="module")
def libtpu() -> None:
    if importlib.util.find_spec("libtpu") is None:
        reason = "libtpu is not installed; pip install -e .[aot] brings it"
        if os.environ.get("CPTJAX_REQUIRE_LIBTPU"):  # CI: what cannot be checked has failed
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_it_says_what_to_install(folder):
    told = run("--gin_file=gin/jobs/plan.gin", *SMALL, f"--gin.HF_CHECKPOINT='{folder}'", "--gin.TOPOLOGY='v5e:2x2'")
    assert told.returncode == 2 and 'pip install "cptjax[aot]"' in told.stderr


WIDE = ["--gin.DecoderConfig.layers=2", "--gin.DecoderConfig.hidden=512", "--gin.DecoderConfig.mlp=1024"]
WIDE += ["--gin.DecoderConfig.heads=4", "--gin.DecoderConfig.kv_heads=4", "--gin.DecoderConfig.head_dim=128"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "topology, chips, devices, mesh",
    [("v4:2x2x1", 4, 4, '{"fsdp": 2, "replica": 2}'), ("tpu7x:2x2x1", 4, 8, '{"fsdp": 4, "replica": 2}')],
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
