"""A mixture of experts through the jobs: a folder in, trained with its routers' loss, given back."""

import json

import jax
import pytest
from commands import logged, run_main

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.source import open_checkpoint
from cptjax.models.config import DecoderConfig
from cptjax.models.families.mixtral import MIXTRAL
from cptjax.models.model import initialize
from cptjax.sharding.mesh import build_mesh

pytestmark = pytest.mark.slow
CONFIG = DecoderConfig(
    vocabulary=512, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=32, maximum_length=128,
    experts=4, experts_per_token=2, expert_mlp=32, router_loss=0.05,
)  # fmt: skip


def test_a_mixture_is_trained_balanced_and_given_back(recipe, shared_data, tmp_path):
    params = initialize(CONFIG, 0, build_mesh({"fsdp": 1}, jax.devices()[:1]))
    export_folder(params, CONFIG, MIXTRAL, None, shared_data / "stories260K", tmp_path / "base")
    told = [*recipe, f"HF_CHECKPOINT='{tmp_path / 'base'}'", "TRAIN_TOKENS=8192", "MESH={'fsdp': 2, 'tensor': 2}"]
    printed = run_main(*told, f"OUTPUT_DIR='{tmp_path / 'run'}'", "ROUTER_LOSS='inherit'", devices=4)
    assert "2 of 4 for each token" in printed and "load-balancing loss times 0.05 is trained on" in printed
    run_main(*told, f"OUTPUT_DIR='{tmp_path / 'without'}'", devices=4)
    balanced, without = (
        [line["router_loss"] for line in logged(tmp_path / name) if "loss" in line] for name in ("run", "without")
    )
    assert len(balanced) == 16 and balanced[0] == without[0] and balanced[-1] < without[-1]
    assert open_checkpoint(tmp_path / "run").metadata["plan"]["router_loss"] == 0.05
    assert "router_loss" not in open_checkpoint(tmp_path / "without").metadata["plan"]
    refused = run_main(*told, f"OUTPUT_DIR='{tmp_path / 'run'}'", devices=4, code=2)
    assert "router_loss: 0.05 there, None now" in refused
    run_main("gin/jobs/export.gin", f"CHECKPOINT='{tmp_path / 'run'}'", f"OUTPUT_DIR='{tmp_path / 'out'}'")
    transformers = pytest.importorskip("transformers")
    model, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (
        model.config.router_aux_loss_coef
        == json.loads((tmp_path / "base" / "config.json").read_text())["router_aux_loss_coef"]
    )
