"""What a config.json may say, and what is refused by name because it would change the mathematics."""

import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig, Llama3Rope
from cptjax.models.families.family import correspondences
from cptjax.models.families.gpt2 import COLUMNS_JOINED
from cptjax.models.families.gpt_neox import BY_HEAD, BY_HEAD_VECTOR
from cptjax.models.families.layout import HEADS_FIRST, HEADS_LAST, HEADS_VECTOR, TRANSPOSED
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.mistral import MISTRAL
from cptjax.models.families.phi3 import HEADS_JOINED, WIDTHS_JOINED
from cptjax.models.families.qwen2 import QWEN2
from cptjax.models.families.registry import FAMILIES, family_of
from cptjax.models.model import parameter_counts

# As published with the models (shortened to what a config.json holds).
LLAMA_2 = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf",
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
LLAMA_3_STRETCH = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 131072,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
MISTRAL_1 = {name: value for name, value in LLAMA_2.items() if name not in ("rope_scaling", "pretraining_tp")} | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}
MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mixtral",
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
QWEN_3 = {name: value for name, value in QWEN.items() if name != "architectures"} | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "sliding_window": None,
    "vocab_size": 151936,
}
QWEN_3_30B_A3B = QWEN_3 | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "tie_word_embeddings": False,
}
GEMMA_2B = {
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "max_position_embeddings": 8192,
    "model_type": "gemma",
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "vocab_size": 256000,
}
GEMMA_2_2B = GEMMA_2B | {
    "architectures": ["Gemma2ForCausalLM"],
    "attn_logit_softcapping": 50.0,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": 30.0,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "model_type": "gemma2",
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
GEMMA_3_1B = {name: value for name, value in GEMMA_2_2B.items() if name != "hidden_act"} | {
    "architectures": ["Gemma3ForCausalLM"],
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "rope_local_base_freq": 10000,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}
OLMO_2_7B = {name: value for name, value in LLAMA_2.items() if name != "pretraining_tp"} | {
    "architectures": ["Olmo2ForCausalLM"],
    "attention_bias": False,
    "model_type": "olmo2",
    "rms_norm_eps": 1e-06,
    "rope_theta": 500000,
    "vocab_size": 100352,
}
PHI_3_MINI = {name: value for name, value in LLAMA_2.items() if name != "pretraining_tp"} | {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "embd_pdrop": 0.0,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "model_type": "phi3",
    "original_max_position_embeddings": 4096,
    "resid_pdrop": 0.0,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "vocab_size": 32064,
}
NEMOTRON_8B = {
    "architectures": ["NemotronForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "relu2",
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "model_type": "nemotron",
    "norm_eps": 1e-05,
    "num_attention_heads": 48,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "partial_rotary_factor": 0.5,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "vocab_size": 256000,
}
PYTHIA_70M = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 512,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
GPT_2_SMALL = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_type": "cls_index",
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
OPT_350M = {
    "_remove_final_layer_norm": False,
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "architectures": ["OPTForCausalLM"],
    "do_layer_norm_before": False,
    "dropout": 0.1,
    "ffn_dim": 4096,
    "hidden_size": 1024,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "model_type": "opt",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "prefix": "</s>",
    "vocab_size": 50272,
    "word_embed_proj_dim": 512,
}
CONFIGS = {
    "llama": LLAMA_2,
    "mistral": MISTRAL_1,
    "mixtral": MIXTRAL_8X7B,
    "qwen2": QWEN,
    "qwen3": QWEN_3,
    "qwen3_moe": QWEN_3_30B_A3B,
    "gemma": GEMMA_2B,
    "gemma2": GEMMA_2_2B,
    "gemma3_text": GEMMA_3_1B,
    "olmo2": OLMO_2_7B,
    "phi3": PHI_3_MINI,
    "nemotron": NEMOTRON_8B,
    "gpt_neox": PYTHIA_70M,
    "gpt2": GPT_2_SMALL,
    "opt": OPT_350M,
}


def test_published_configs_are_read():
    assert LLAMA.read_config(LLAMA_2) == DecoderConfig(32000, 4096, 32, 32, 32, 128, 11008, 1e-5, maximum_length=4096)
    stretched = LLAMA.read_config(LLAMA_2 | {"rope_theta": 500000.0, "rope_scaling": LLAMA_3_STRETCH})
    assert stretched.rope_theta == 500000.0 and stretched.rope_scaling == Llama3Rope(8.0, 1.0, 4.0, 8192)
    assert MISTRAL.read_config(MISTRAL_1).windows == (4096,)
    qwen = QWEN2.read_config(QWEN)
    assert qwen.windows == (None,) and qwen.query_key_value_bias and not qwen.output_bias and qwen.head_dim == 64


@pytest.mark.parametrize(
    "family, total",
    [
        ("qwen3", 596_049_920),  # Qwen3-0.6B
        ("mixtral", 46_702_792_704),  # Mixtral 8x7B
        ("qwen3_moe", 30_532_122_624),  # Qwen3-30B-A3B
        ("gemma", 2_506_172_416),
        ("gemma2", 2_614_341_888),
        ("gemma3_text", 999_885_952),
        ("olmo2", 7_298_617_344),  # OLMo 2 7B; 7,298,011,136 without the 74 rows that pad its vocabulary
        ("phi3", 3_821_079_552),  # Phi-3-mini-4k
        ("gpt_neox", 70_426_624),  # Pythia 70M
        ("gpt2", 124_439_808),
        ("opt", 331_196_416),  # OPT 350M
    ],
)
def test_published_models_have_their_published_sizes(family, total):
    assert parameter_counts(FAMILIES[family].read_config(CONFIGS[family])).total == total


@pytest.mark.parametrize(
    "family, change",
    [
        ("gemma", {"hidden_act": "gelu", "hidden_activation": None}),  # as google/gemma-2b has it, meaning tanh
        ("gemma2", {"sliding_window_size": 4096}),
        ("qwen2", {"use_mrope": False}),
        ("qwen3_moe", {"use_qk_norm": True, "qkv_bias": False, "shared_expert_intermediate_size": 0}),
        (
            "gpt2",
            {"n_special": 0, "predict_special_tokens": True, "output_past": True},
        ),  # as gpt2-medium and -xl have them
        ("gpt_neox", {"attention_probs_dropout_prob": 0, "hidden_dropout_prob": 0}),
        ("llama", {"max_sequence_length": 2048}),
        ("phi3", {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}),
    ],
)
def test_what_published_configs_say_besides_changes_nothing(family, change):
    plain, given = CONFIGS[family], CONFIGS[family] | change
    assert FAMILIES[family].read_config(given) == FAMILIES[family].read_config(plain)
    assert FAMILIES[family].write_config(FAMILIES[family].read_config(given), given) == given


@pytest.mark.parametrize(
    "family, published, idle",
    [("mixtral", 12.9e9, 32 * 6 * 3 * 4096 * 14336), ("qwen3_moe", 3.3e9, 48 * 120 * 3 * 2048 * 768)],
)
def test_a_token_reads_a_part_of_a_mixtures_parameters(family, published, idle):
    counts = parameter_counts(FAMILIES[family].read_config(CONFIGS[family]))
    assert counts.active == counts.total - idle == pytest.approx(published, rel=0.02)


def test_experts_are_counted_under_either_name_and_stand_where_the_config_says():
    read = FAMILIES["qwen3_moe"].read_config
    five = {name: value for name, value in QWEN_3_30B_A3B.items() if name != "num_experts"} | {"num_local_experts": 128}
    assert read(five) == read(QWEN_3_30B_A3B)
    sparse = read(QWEN_3_30B_A3B | {"decoder_sparse_step": 3})
    assert sparse.dense_layers == (True, True, False) and sparse.windows == (None, None, None)
    some = read(QWEN_3_30B_A3B | {"num_hidden_layers": 4, "mlp_only_layers": [0]})
    assert some.mixed_layers == (False, True, True, True)
    written = FAMILIES["qwen3_moe"].write_config(sparse)
    assert written["mlp_only_layers"] == [layer for layer in range(48) if layer % 3 != 2]


def test_the_routers_loss_is_trained_on_where_config_json_says_so():
    read = FAMILIES["mixtral"].read_config
    assert (read(MIXTRAL_8X7B).router_loss, read(MIXTRAL_8X7B).adds_router_loss) == (0.02, False)
    assert read(MIXTRAL_8X7B | {"output_router_logits": True}).adds_router_loss


def test_gemma_3_has_a_global_layer_in_six():
    windows = FAMILIES["gemma3_text"].read_config(GEMMA_3_1B).windows
    assert windows == (*(512,) * 5, None) * 4 + (512, 512)
    longer = FAMILIES["gemma3_text"].read_config(GEMMA_3_1B | {"num_hidden_layers": 24})
    assert longer.windows == (*(512,) * 5, None) and longer.window_rope_theta == 1e4 and longer.rope_theta == 1e6


def test_both_styles_of_rope_settings_mean_the_same():
    four = LLAMA_2 | {"rope_theta": 500000.0, "rope_scaling": LLAMA_3_STRETCH}
    five = {name: value for name, value in LLAMA_2.items() if name not in ("rope_scaling", "torch_dtype")}
    five |= {"rope_parameters": LLAMA_3_STRETCH | {"rope_theta": 500000.0}, "dtype": "float16"}
    assert LLAMA.read_config(four) == LLAMA.read_config(five)
    legacy = LLAMA_3_STRETCH | {"type": "llama3"}
    del legacy["rope_type"]
    assert LLAMA.read_config(four | {"rope_scaling": legacy}) == LLAMA.read_config(four)


@pytest.mark.parametrize(
    "family, change, message",
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'.*only 'silu'"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' is not supported"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "'longrope' is not supported"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}},
            "llama3 rope scaling lacks 'low_freq_factor'",
        ),
        ("llama", {"rope_parameters": {"rope_theta": 5.0}, "rope_theta": 6.0}, "rope_theta = 6.0, but .* 5.0"),
        ("llama", {"rope_parameters": {"rope_type": "default", "mrope_section": [1]}}, "mrope_section"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("llama", {"rope_interleaved": True}, "rope_interleaved = True"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"attn_logit_softcapping": 50.0, "qk_norm": True}, "attn_logit_softcapping = 50.0, qk_norm = True"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ("llama", {"num_key_value_heads": 5}, "kv_heads = 5"),
        ("llama", {"sliding_window": 4096}, "sliding_window = 4096"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}}, "'mscale' is not known"),
        ("mixtral", {"num_experts_per_tok": 9}, "experts_per_token = 9 of experts = 8"),
        ("mixtral", {"norm_topk_prob": False}, "norm_topk_prob = False"),
        ("mixtral", {"num_shared_experts": 1}, "num_shared_experts = 1"),
        ("mixtral", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("qwen3_moe", {"num_local_experts": 64}, "num_experts = 128, but num_local_experts = 64"),
        ("qwen3_moe", {"decoder_sparse_step": 49}, "no layer has experts"),
        ("qwen3_moe", {"shared_expert_intermediate_size": 5632}, "shared_expert_intermediate_size = 5632"),
        (
            "qwen3_moe",
            {"use_sliding_window": True, "sliding_window": 64},
            "max_window_layers = 48 with use_sliding_window",
        ),
        ("phi3", {"rope_scaling": {"type": "longrope", "factor": 2.0}}, "'longrope' is not supported"),
        ("gemma", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ("gemma2", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("gemma2", {"sliding_window_size": 512}, "sliding_window_size = 512"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0 .* it must be left out"),
        ("gemma3_text", {"sliding_window_pattern": None, "_sliding_window_pattern": 3}, "_sliding_window_pattern = 3"),
        ("qwen3_moe", {"use_qk_norm": False}, "use_qk_norm = False"),
        ("opt", {"learned_embeddings": False}, "learned_embeddings = False"),
        ("qwen2", {"use_mrope": True}, "use_mrope = True"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "'yarn' is not supported; supported: 'default'"),
        ("gemma3_text", {"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}}, "truncate = False"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ("gpt_neox", {"hidden_act": "mish"}, "hidden_act = 'mish' is not supported"),
        ("gpt_neox", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "rotary_pct = 0.25, but .* 0.5"),
        ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm = True"),
        ("mistral", {"attention_bias": True}, "attention_bias = True"),
        ("mistral", {"layer_types": ["full_attention"] * 32}, "layer_types"),
        ("qwen2", {"layer_types": ["full_attention"] * 3}, "layer_types has 3 of 24"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 24}, "'chunked_attention'"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 24}, "no sliding_window is in use"),
    ],
)
def test_what_would_change_the_mathematics_is_refused_by_name(family, change, message):
    with pytest.raises(ConfigurationError, match=message) as refused:
        FAMILIES[family].read_config(CONFIGS[family] | change, "somewhere/config.json")
    assert "somewhere/config.json" in str(refused.value)


def test_a_missing_field_is_named():
    with pytest.raises(ConfigurationError, match="lacks 'vocab_size'"):
        LLAMA.read_config({name: value for name, value in LLAMA_2.items() if name != "vocab_size"})


def test_an_unsupported_model_type_lists_those_supported():
    with pytest.raises(ConfigurationError, match="'mamba' is not supported.*\n.*llama .*mistral .*qwen2"):
        family_of({"model_type": "mamba"})
    with pytest.raises(ConfigurationError, match="names no model_type"):
        family_of({})


def test_qwen_windows_follow_layer_types_or_max_window_layers():
    used = QWEN | {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}
    assert QWEN2.read_config(used).windows == (None, None, 9, 9)
    alternating = used | {"layer_types": ["full_attention", "sliding_attention"] * 2}
    assert QWEN2.read_config(alternating).windows == (None, 9)
    assert QWEN2.read_config(used | {"max_window_layers": 0}).windows == (9,)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unchanged_config_is_given_back_as_it_was(family):
    original = CONFIGS[family]
    assert FAMILIES[family].write_config(FAMILIES[family].read_config(original), original) == original


def test_a_changed_config_keeps_what_the_original_knew_of_tokens():
    import dataclasses

    longer = dataclasses.replace(LLAMA.read_config(LLAMA_2), maximum_length=8192, rope_theta=500000.0)
    written = LLAMA.write_config(longer, LLAMA_2)
    assert LLAMA.read_config(written) == longer
    assert written["eos_token_id"] == 2 and written["max_position_embeddings"] == 8192


@pytest.mark.parametrize(
    "family, change, message",
    [
        (MISTRAL, {"query_key_value_bias": True}, "query_key_value_bias"),
        (MISTRAL, {"windows": (None, 4)}, "windows"),
        (LLAMA, {"windows": (4,)}, "windows"),
        (LLAMA, {"output_bias": True}, "attention_bias means both"),
        (QWEN2, {"query_key_value_bias": False}, "query_key_value_bias"),
        (QWEN2, {"windows": (3, 4), "query_key_value_bias": True}, "several widths"),
    ],
)
def test_a_config_that_a_family_cannot_express_is_refused(family, change, message):
    config = DecoderConfig(64, 16, 4, 4, 2, 4, 24, **change)
    with pytest.raises(ConfigurationError, match=message):
        family.write_config(config)


@pytest.mark.parametrize(
    "layout, ours, theirs",
    [
        (HEADS_FIRST, (5, 2, 3), (6, 5)),
        (HEADS_LAST, (2, 3, 5), (5, 6)),
        (HEADS_VECTOR, (2, 3), (6,)),
        (TRANSPOSED, (5, 3), (3, 5)),
    ],
)
def test_layouts_are_inverse_and_copy_nothing_on_the_way_in(layout, ours, theirs):
    import numpy as np

    assert layout.their_shape(ours) == theirs
    tensor = np.arange(np.prod(theirs)).reshape(theirs)
    array = layout.to_ours(tensor, ours)
    assert array.shape == ours and np.shares_memory(array, tensor)
    assert np.array_equal(layout.to_theirs(array), tensor)


@pytest.mark.parametrize(
    "layout, shapes, theirs",
    [
        (HEADS_JOINED, ((5, 4, 3), (5, 2, 3), (5, 2, 3)), (24, 5)),  # Phi-3: keys and values have fewer heads
        (WIDTHS_JOINED, ((5, 7), (5, 7)), (14, 5)),
        (BY_HEAD, ((5, 2, 3),) * 3, (18, 5)),
        (BY_HEAD_VECTOR, ((2, 3),) * 3, (18,)),
        (COLUMNS_JOINED, ((5, 2, 3),) * 3, (5, 18)),
    ],
)
def test_tensors_that_hold_several_weights_are_cut_without_copying_and_joined_again(layout, shapes, theirs):
    import numpy as np

    assert layout.their_shape(*shapes) == theirs
    tensor = np.arange(np.prod(theirs)).reshape(theirs)
    parts = [layout.to_ours(tensor, *shapes, part=part) for part in range(len(shapes))]
    assert [part.shape for part in parts] == list(shapes)
    assert all(np.shares_memory(part, tensor) for part in parts)
    assert np.array_equal(layout.to_theirs(*parts), tensor)


def test_names_of_a_model_saved_without_its_head():
    names = [name for name, _ in FAMILIES["gpt2"].unprefixed().tensors.values()]
    assert "wte.weight" in names and "h.{i}.attn.c_attn.weight" in names and "lm_head.weight" in names


def test_every_weight_has_its_tensors_in_the_right_layers():
    config = DecoderConfig(64, 16, 4, 4, 2, 4, 24, windows=(None, 4), query_key_value_bias=True)
    found = correspondences(QWEN2, config)
    kernels = [found[f"layers.pattern_{position}.mlp.up.kernel"].names for position in range(2)]
    assert kernels == [tuple(f"model.layers.{i}.mlp.up_proj.weight" for i in layers) for layers in ((0, 2), (1, 3))]
    names = [name for entry in found.values() for name in entry.names]
    assert len(names) == len(set(names)) == 3 + 4 * (2 + 7 + 3)
