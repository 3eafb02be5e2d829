"""A run at a greater length than its checkpoint's: said in its plan and lineage, kept by resume, export, and the next run."""

import json

import jax
import numpy as np
import pytest
from commands import run_main

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.source import open_checkpoint
from cptjax.models.config import DecoderConfig
from cptjax.models.families.registry import FAMILIES
from cptjax.models.model import initialize
from cptjax.models.rope_scaling import YarnRope
from cptjax.sharding.mesh import build_mesh

pytestmark = pytest.mark.slow
YARN = "ROPE_SCALING={'rope_type': 'yarn', 'factor': 1.25, 'attention_factor': 1.1}"  # from 512 to 640
LEARNED = {
    "positions": "learned",
    "norm": "layer",
    "gated_mlp": False,
    "activation": "gelu_tanh",
    "tied_embeddings": True,
    **dict.fromkeys(("query_key_value_bias", "output_bias", "mlp_bias"), True),
}
SIZES = ["SEQUENCE_LENGTH=640", "BATCH_TOKENS=1280", "TRAIN_TOKENS=2560", "PEAK_LEARNING_RATE=1e-3"]


@pytest.fixture(scope="module")
def settings(recipe, tmp_path_factory):
    """Settings of a short run of 640 tokens a row, but for the recipe, the checkpoint and the output."""
    texts = [each for each in recipe if each.split("=")[0] in ("GENERAL", "TARGET")]
    return [*texts, *SIZES, f"ROWS_DIR='{tmp_path_factory.mktemp('longer') / 'rows'}'"]


@pytest.fixture(scope="module")
def longer(shared_data, settings, tmp_path_factory):
    """The command of such a run from the real checkpoint, its folder, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "longer"
    base = [f"HF_CHECKPOINT='{shared_data / 'stories260K'}'", f"OUTPUT_DIR='{run}'"]
    given = ["gin/recipes/longer_context.gin", *base, *settings, "ROPE_THETA=None", YARN]
    return given, run, run_main(*given)


@pytest.fixture(scope="module")
def exported(longer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "longer"
    run_main("gin/jobs/export.gin", f"CHECKPOINT='{longer[1]}'", f"OUTPUT_DIR='{folder}'")
    return folder


def test_without_a_setting_longer_rows_are_refused(shared_data, settings, tmp_path):
    base = [f"HF_CHECKPOINT='{shared_data / 'stories260K'}'", f"OUTPUT_DIR='{tmp_path / 'r'}'"]
    printed = run_main("gin/recipes/rewarm.gin", *base, *settings, code=2)
    for said in ("SEQUENCE_LENGTH = 640", "at most 512", "ROPE_THETA", "ROPE_SCALING", "MAXIMUM_LENGTH = 640"):
        assert said in printed
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "family, model, setting, message",
    [
        ("phi3", {}, YARN, "a phi3 config: rope scaling of type 'yarn' is not supported"),
        ("gpt2", LEARNED, "ROPE_THETA=5e5", "learned positions for 512 tokens and none beyond"),
        ("gpt2", LEARNED, "SEED=1", "learned, and there are none beyond: lower SEQUENCE_LENGTH"),
    ],
)
def test_what_a_family_cannot_say_is_refused_before_anything_starts(
    family, model, setting, message, shared_data, settings, tmp_path
):
    config = DecoderConfig(512, 16, 1, 2, 2, 8, 24, maximum_length=512, **model)
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    base = tmp_path / "base"
    export_folder(initialize(config, 0, mesh), config, FAMILIES[family], None, shared_data / "stories260K", base)
    given = [f"HF_CHECKPOINT='{base}'", f"OUTPUT_DIR='{tmp_path / 'r'}'", setting]
    given += [] if setting == "SEED=1" else ["MAXIMUM_LENGTH=640"]
    assert message in run_main("gin/recipes/rewarm.gin", *given, *settings, code=2)
    assert not (tmp_path / "r").exists()


def test_plan_and_lineage_say_what_was_changed(longer):
    _, run, printed = longer
    assert "context   from here on rope_scaling yarn (factor 1.25" in printed and "maximum_length 640" in printed
    assert "context   from here on" in (run / "plan.txt").read_text()
    opened = open_checkpoint(run)
    assert (
        opened.config.rope_scaling == YarnRope(1.25, 512, attention_factor=1.1) and opened.config.maximum_length == 640
    )
    changed = opened.lineage.runs[-1].longer_context
    assert changed == {"rope_scaling": opened.config.rope_scaling.to_json(), "maximum_length": 640}
    assert opened.metadata["plan"]["longer_context"]["MAXIMUM_LENGTH"] == 640


def test_another_value_is_another_run(longer):
    given, run, _ = longer
    assert "is finished" in run_main(*given)
    other = [each for each in given if not each.startswith("ROPE_SCALING")]
    printed = run_main(*other, YARN.replace("1.1", "1.2"), code=2)
    assert "longer_context.ROPE_SCALING.attention_factor: 1.1 there, 1.2 now" in printed
    printed = run_main(*other, "ROPE_THETA=5e5", code=2)
    assert "longer_context.ROPE_THETA: None there, 500000.0 now" in printed


def test_transformers_scores_the_export_as_we_do_beyond_the_old_length(longer, exported, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokens = np.random.default_rng(0).integers(3, 512, 640).tolist()
    (tmp_path / "in.jsonl").write_text(json.dumps({"tokens": tokens}) + "\n")
    files = [f"INPUT='{tmp_path / 'in.jsonl'}'", f"OUTPUT='{tmp_path / 'out.jsonl'}'"]
    run_main("gin/jobs/score.gin", f"CHECKPOINT='{longer[1]}'", *files)
    ours = json.loads((tmp_path / "out.jsonl").read_text())["logprobs"]
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    assert model.config.max_position_embeddings == 640
    with torch.no_grad():
        table = torch.log_softmax(model(torch.tensor([tokens])).logits[0], -1)
    assert ours == pytest.approx([table[i, token].item() for i, token in enumerate(tokens[1:])], abs=1e-4)


def test_the_next_run_goes_on_as_it_is(exported, settings, longer, tmp_path):
    given = ["gin/recipes/rewarm.gin", *settings, f"OUTPUT_DIR='{tmp_path / 'next'}'"]
    printed = run_main(*given, f"HF_CHECKPOINT='{exported}'")
    opened, before = open_checkpoint(tmp_path / "next"), open_checkpoint(longer[1])
    assert opened.config == before.config and "from here on" not in printed
    assert opened.lineage.runs[-1].longer_context is None and "longer_context" not in opened.metadata["plan"]
    printed = run_main(*given, f"HF_CHECKPOINT='{longer[1]}'", f"OUTPUT_DIR='{tmp_path / 'other'}'", "--dry_run")
    assert "rows x 640" in printed and "from here on" not in printed
