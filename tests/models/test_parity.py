"""The same logits as transformers, both ways: reading its checkpoints, and writing ones that it reads."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cptjax.checkpoints.exporting import export_folder
from cptjax.checkpoints.hugging_face import open_folder
from cptjax.checkpoints.loading import load_parameters
from cptjax.models.config import DecoderConfig, LinearRope, Llama3Rope, YarnRope
from cptjax.models.families.registry import FAMILIES
from cptjax.models.model import initialize, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.mesh import build_mesh

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 40
TINY = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 16}
THREE_HEADS = {"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 30, "head_dim": 10}
PADDED = {"pad_token_id": 0}  # theirs is beyond this vocabulary
GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64}
NAMED_OTHERWISE = {
    "GPTNeoX": ("num_key_value_heads",),
    "OPT": ("num_key_value_heads", "intermediate_size"),
    "GPT2": set(TINY) - {"vocab_size"},
}
THEIRS = {
    "llama 2": ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama 3, stretched and tied": ("Llama", {"rope_parameters": STRETCHED, "tie_word_embeddings": True}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with its own head_dim": ("Llama", {"head_dim": 12}),
    "mistral, window shorter than the text": ("Mistral", {"sliding_window": 5}),
    "mistral without window": ("Mistral", {"sliding_window": None, "head_dim": 6}),
    "qwen2, tied": (
        "Qwen2",
        {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    "qwen2, windows on the upper layers": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    ),
    "llama, interpolated": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "llama, yarn": ("Llama", {"rope_parameters": YARN}),
    "qwen3, tied": ("Qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "qwen3, biases, three heads, windows and yarn": (
        "Qwen3",
        THREE_HEADS
        | {
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "rope_parameters": YARN | {"attention_factor": 1.3, "beta_fast": 4.0, "beta_slow": 0.5},
        },
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "mixtral, one expert of five a token, window, tied": (
        "Mixtral",
        {
            "num_local_experts": 5,
            "num_experts_per_tok": 1,
            "num_key_value_heads": 1,
            "sliding_window": 5,
            "tie_word_embeddings": True,
        },
    ),
    "mixtral, all of three experts, three heads": (
        "Mixtral",
        THREE_HEADS
        | {"hidden_size": 36, "head_dim": 12}  # theirs multiplies by experts only where a row is a multiple of 16 bytes
        | {"num_local_experts": 3, "num_experts_per_tok": 3, "output_router_logits": True, "router_jitter_noise": 0.1},
    ),
    "qwen3-moe": ("Qwen3Moe", {"num_experts": 6, "moe_intermediate_size": 20, "num_experts_per_tok": 3}),
    "qwen3-moe, renormalised, tied, biases, dense layers, window": (
        "Qwen3Moe",
        {
            "num_experts": 4,
            "moe_intermediate_size": 20,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "num_key_value_heads": 4,
            "head_dim": 12,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "decoder_sparse_step": 2,
            "use_sliding_window": True,
            "sliding_window": 7,
        },
    ),
    "qwen3-moe, one dense layer": (
        "Qwen3Moe",
        {"num_experts": 4, "moe_intermediate_size": 20, "num_experts_per_tok": 1, "mlp_only_layers": [1]},
    ),
    "gemma": ("Gemma", {"head_dim": 12, "num_key_value_heads": 1}),
    "gemma, biases, untied": ("Gemma", THREE_HEADS | {"attention_bias": True, "tie_word_embeddings": False}),
    "gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 20}),
    "gemma2 without caps, odd layers": (
        "Gemma2",
        THREE_HEADS
        | {
            "num_hidden_layers": 3,
            "sliding_window": 7,
            "query_pre_attn_scalar": 10,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    ),
    "gemma2 with strong caps": (
        "Gemma2",
        {"head_dim": 8, "attn_logit_softcapping": 0.7, "final_logit_softcapping": 1.5, "query_pre_attn_scalar": 8},
    ),
    "gemma3": ("Gemma3", {"num_hidden_layers": 6, "head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 12}),
    "gemma3, stretched, layers that no pattern divides": (
        "Gemma3",
        {
            "num_hidden_layers": 7,
            "head_dim": 8,
            "sliding_window": 6,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 8,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
    "olmo2": ("Olmo2", {"rms_norm_eps": 1e-6}),
    "olmo2, biases, three heads, tied": (
        "Olmo2",
        THREE_HEADS | {"hidden_size": 30, "attention_bias": True, "tie_word_embeddings": True},
    ),
    "phi3": ("Phi3", PADDED),
    "phi3, part of a head turned, window, tied": (
        "Phi3",
        PADDED
        | {
            "num_key_value_heads": 1,
            "sliding_window": 5,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.75},
        },
    ),
    "nemotron": ("Nemotron", {}),
    "nemotron, biases, its own head_dim": (
        "Nemotron",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 12,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5},
        },
    ),
    "gpt-neox": ("GPTNeoX", {}),
    "gpt-neox, serial, three heads, tied, tanh": (
        "GPTNeoX",
        {
            "hidden_size": 36,
            "num_attention_heads": 3,
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            "hidden_act": "gelu_new",
            "rope_parameters": {
                "rope_type": "linear",
                "rope_theta": 5000.0,
                "factor": 2.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    "gpt-neox without attention biases": ("GPTNeoX", {"attention_bias": False}),
    "gpt2": ("GPT2", GPT2),
    "gpt2, three heads, untied": (
        "GPT2",
        GPT2 | {"n_embd": 30, "n_head": 3, "n_inner": 50, "tie_word_embeddings": False, "activation_function": "relu"},
    ),
    "opt": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "opt, norms of sums, narrow embedding": (
        "OPT",
        {"ffn_dim": 48, "word_embed_proj_dim": 20, "do_layer_norm_before": False},
    ),
    "opt without biases, untied, three heads": (
        "OPT",
        {
            "hidden_size": 30,
            "num_attention_heads": 3,
            "ffn_dim": 48,
            "enable_bias": False,
            "tie_word_embeddings": False,
        },
    ),
}
KIND = {"GPT2": "GPT2LMHeadModel"}


def their_log_probabilities(model, ids):
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor(np.asarray(ids))).logits.float(), -1).numpy()


def our_log_probabilities(params, config, ids, numerics=None):
    positions = jnp.tile(jnp.arange(ids.shape[1]), (ids.shape[0], 1))
    function = jax.jit(
        lambda params: logits(params, config, numerics or Numerics(), ids, positions, jnp.ones_like(ids))
    )
    return np.asarray(jax.nn.log_softmax(function(params)))


def one_device():
    return build_mesh({"fsdp": 1}, jax.devices()[:1])


@pytest.fixture
def ids():
    return jnp.asarray(np.random.default_rng(0).integers(0, TINY["vocab_size"], (2, LENGTH)))


def make_theirs(name, folder):
    """A model of theirs, every weight random (their initialisation leaves biases 0 and norms 1), saved to `folder`."""
    kind, settings = THEIRS[name]
    torch.manual_seed(0)
    shared = {field: value for field, value in TINY.items() if field not in NAMED_OTHERWISE.get(kind, ())}
    config_kind = "Gemma3Text" if kind == "Gemma3" else kind
    config = getattr(transformers, f"{config_kind}Config")(**shared | settings)
    model = getattr(transformers, KIND.get(kind, f"{kind}ForCausalLM"))(config).float().eval()
    # Squared ReLUs square what float32 rounds: at 0.3 theirs is 1.3e-4 from its own float64, ours 4e-5.
    deviation = 0.2 if kind == "Nemotron" else 0.3
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=deviation) if parameter.ndim > 1 else parameter.add_(
                0.3 * torch.randn_like(parameter)
            )
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", THEIRS)
def test_we_read_theirs_and_give_it_back_unchanged(name, ids, tmp_path):
    model = make_theirs(name, tmp_path / "theirs")
    folder = open_folder(tmp_path / "theirs")
    params = load_parameters(folder, one_device())
    ours = our_log_probabilities(params, folder.decoder_config, ids)
    assert np.abs(ours - their_log_probabilities(model, ids)).max() < 1e-4

    export_folder(params, folder.decoder_config, folder.family, folder.config, None, tmp_path / "back")
    back = open_folder(tmp_path / "back")
    assert back.decoder_config == folder.decoder_config
    for tensor in folder.tensors:
        assert bytes(folder.tensors[tensor].read(tensor)) == bytes(back.tensors[tensor].read(tensor))
    returned, report = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert np.array_equal(their_log_probabilities(returned, ids), their_log_probabilities(model, ids))


@pytest.mark.parametrize("name", THEIRS)
def test_the_config_says_the_same_in_the_style_of_transformers_4(name, tmp_path):
    make_theirs(name, tmp_path)
    config = open_folder(tmp_path).decoder_config
    written = json.loads((tmp_path / "config.json").read_text())
    rope = dict(written.pop("rope_parameters", None) or {"rope_type": "default"})
    fields = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"} if "neox" in name else {}
    if "full_attention" in rope:
        written["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = dict(rope["full_attention"])
    for field in ("rope_theta", "partial_rotary_factor"):
        if field in rope:
            written[fields.get(field, field)] = rope.pop(field)
    written["torch_dtype"] = written.pop("dtype")
    written["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    assert FAMILIES[written["model_type"]].read_config(written) == config


SMALL = {"vocabulary": 67, "hidden": 32, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp": 48}
UNGROUPED = SMALL | {"kv_heads": 4}
GEMMA = {"norm_unit_offset": True, "activation": "gelu_tanh", "embedding_scale": math.sqrt(32), "tied_embeddings": True}
CAPPED = {"attention_scale": 12**-0.5, "attention_soft_cap": 3.0, "logit_soft_cap": 5.0, "norm_placement": "both"}
LAYER_NORMS = {"norm": "layer", "gated_mlp": False}
LEARNED = LAYER_NORMS | {"positions": "learned", "maximum_length": 64}
ALL_BIASES = {"query_key_value_bias": True, "output_bias": True, "mlp_bias": True}
OURS = {
    "llama": DecoderConfig(
        **SMALL, rope_scaling=Llama3Rope(8.0, 1.0, 4.0, 16), query_key_value_bias=True, output_bias=True
    ),
    "mistral": DecoderConfig(**SMALL | {"head_dim": 10}, windows=(6,), tied_embeddings=True),
    "qwen2": DecoderConfig(**SMALL, windows=(None, 9), query_key_value_bias=True, rope_theta=1e6),
    "qwen3": DecoderConfig(
        **SMALL, query_key_norm="head", windows=(None, 9), rope_scaling=YarnRope(3.0, 16, truncate=False)
    ),
    "mixtral": DecoderConfig(**SMALL, experts=5, experts_per_token=2, expert_mlp=48, router_loss=0.02, windows=(9,)),
    "qwen3_moe": DecoderConfig(
        **SMALL,
        query_key_norm="head",
        experts=4,
        experts_per_token=2,
        expert_mlp=20,
        renormalised_experts=False,
        windows=(9, 9),
        dense_layers=(True, False),
        query_key_value_bias=True,
        output_bias=True,
        adds_router_loss=True,
    ),
    "gemma": DecoderConfig(**SMALL | {"kv_heads": 1, "head_dim": 12}, **GEMMA),
    "gemma2": DecoderConfig(**SMALL | {"head_dim": 10}, **GEMMA, **CAPPED, windows=(5, None)),
    "gemma3_text": DecoderConfig(
        **SMALL,
        **GEMMA,
        **CAPPED | {"attention_soft_cap": None},
        windows=(5, 5, None, 5),
        query_key_norm="head",
        window_rope_theta=300.0,
        rope_scaling=LinearRope(8.0),
    ),
    "olmo2": DecoderConfig(**SMALL, norm_placement="after", query_key_norm="projection", rope_scaling=LinearRope(2.0)),
    "phi3": DecoderConfig(**SMALL, rotary_fraction=0.75, windows=(7,)),
    "nemotron": DecoderConfig(
        **SMALL | {"head_dim": 12}, **LAYER_NORMS, norm_unit_offset=True, activation="relu_squared", rotary_fraction=0.5
    ),
    "gpt_neox": DecoderConfig(
        **UNGROUPED, **LAYER_NORMS, **ALL_BIASES, parallel_residual=True, activation="gelu", rotary_fraction=0.25
    ),
    "gpt2": DecoderConfig(**UNGROUPED, **LEARNED, **ALL_BIASES, activation="gelu_tanh", tied_embeddings=True),
    "opt": DecoderConfig(
        **UNGROUPED, **LEARNED, position_offset=2, activation="relu", norm_placement="sum", embedding_width=20
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_they_read_ours(model_type, dtype, ids, tmp_path):
    config = OURS[model_type]
    params = initialize(config, 0, one_device())
    told = PADDED if model_type == "phi3" else None
    export_folder(params, config, FAMILIES[model_type], told, None, tmp_path / "ours", dtype=dtype, shard_bytes=20_000)
    assert (tmp_path / "ours" / "model.safetensors.index.json").exists()
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    if dtype == "bfloat16":
        params = load_parameters(open_folder(tmp_path / "ours"), one_device())
    ours = our_log_probabilities(params, config, ids)
    assert np.abs(ours - their_log_probabilities(model.eval(), ids)).max() < 1e-4
    # The exported dtype is what the folder says of itself: what transformers loads when not told otherwise.
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert loaded.dtype == getattr(torch, dtype)


def test_packed_documents_score_as_each_would_alone(ids, tmp_path):
    """Segments and restarting positions, checked against transformers on each document by itself."""
    model = make_theirs("mistral, window shorter than the text", tmp_path)
    folder = open_folder(tmp_path)
    params = load_parameters(folder, one_device())
    cut = 13
    positions = jnp.tile(jnp.concatenate([jnp.arange(cut), jnp.arange(LENGTH - cut)]), (2, 1))
    segments = jnp.tile(jnp.where(jnp.arange(LENGTH) < cut, 1, 2), (2, 1))
    packed = jax.nn.log_softmax(logits(params, folder.decoder_config, Numerics(), ids, positions, segments))
    for part in (slice(0, cut), slice(cut, LENGTH)):
        assert np.abs(packed[:, part] - their_log_probabilities(model, ids[:, part])).max() < 1e-4


def test_names_without_the_prefix_of_the_whole_model_are_read_and_given_back(ids, tmp_path):
    """As OpenAI's own gpt2 folder has them, with the masks that follow from the config."""
    from safetensors.torch import load_file, save_file

    model = make_theirs("gpt2", tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    masks = {f"h.{layer}.attn.bias": torch.tril(torch.ones(1, 1, 64, 64)) for layer in range(4)}
    save_file(tensors | masks, file, metadata={"format": "pt"})
    folder = open_folder(tmp_path)
    params = load_parameters(folder, one_device())
    ours = our_log_probabilities(params, folder.decoder_config, ids)
    assert np.abs(ours - their_log_probabilities(model, ids)).max() < 1e-4
    export_folder(params, folder.decoder_config, folder.family, folder.config, None, tmp_path / "back")
    assert set(open_folder(tmp_path / "back").tensors) == set(tensors)


@pytest.mark.parametrize("theta", [10000.0, 500000.0, 1e6])
@pytest.mark.parametrize("stretched", [False, True])
def test_rotary_frequencies_are_theirs(theta, stretched):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from cptjax.models.rope import inverse_frequencies

    rope = STRETCHED | {"rope_theta": theta, "original_max_position_embeddings": 8192}
    rope = rope if stretched else {"rope_type": "default", "rope_theta": theta}
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**TINY | {"head_dim": 128}, rope_parameters=rope)).inv_freq
    scaling = Llama3Rope(8.0, 1.0, 4.0, 8192) if stretched else None
    ours = inverse_frequencies(DecoderConfig(**SMALL | {"head_dim": 128}, rope_theta=theta, rope_scaling=scaling))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=5e-7)
