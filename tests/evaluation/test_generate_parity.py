"""Greedy texts of four families, token by token those that transformers' own `generate` writes."""

import jax
import numpy as np
import pytest

from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.evaluation.generate import generate
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINY = {
    "vocab_size": 67,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": None,
}
GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2}
WINDOW = {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 20}  # shorter than the text
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 20, "num_experts_per_tok": 2}
KINDS = {
    "Llama": GROUPED,
    "Gemma2": GROUPED | WINDOW | {"tie_word_embeddings": False},  # tied, it repeats one token
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},  # learned positions
    "Qwen3Moe": GROUPED | EXPERTS,
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in ("Llama", "Qwen3Moe") else []) for kind in KINDS]
)
def test_greedy_is_that_of_transformers(kind, tmp_path):
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**TINY | KINDS[kind]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.add_(0.3 * torch.randn_like(parameter))
    model = model.float().eval()
    model.save_pretrained(tmp_path)
    folder = open_folder(tmp_path)
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    params = load_parameters(folder, mesh)
    chance = np.random.default_rng(0)
    prompts = [chance.integers(1, TINY["vocab_size"], length).tolist() for length in (1, 9, 12, 30)]
    ours = generate(params, folder.decoder_config, Numerics(), mesh, prompts, 12, temperature=0)
    for prompt, tokens in zip(prompts, ours, strict=True):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0].tolist()
        assert tokens == theirs
    assert len({token for prompt, tokens in zip(prompts, ours, strict=True) for token in tokens[len(prompt) :]}) > 8
