"""config.json of published models, by the name of their file in gin/models, and how many parameters they were said to have.

Only fields that bear on the architecture. Where each number comes from stands in the gin file's own header; the sizes were
looked up in litgpt's config.py, NVIDIA NeMo and copies of the files themselves, the counts in quotations of the Hub's
`safetensors.total` and of the models' pages (November 2026).
"""

LLAMA_2 = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
LLAMA_3_1 = LLAMA_2 | {
    "attention_bias": False,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_key_value_heads": 8,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "vocab_size": 128256,
}
MISTRAL = {name: value for name, value in LLAMA_2.items() if name != "rope_scaling"} | {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "max_position_embeddings": 32768,
    "num_key_value_heads": 8,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
}
QWEN = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
}
QWEN_3 = QWEN | {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "sliding_window": None,
    "vocab_size": 151936,
}
GEMMA_2 = {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 256000,
}
OPT = {
    "model_type": "opt",
    "architectures": ["OPTForCausalLM"],
    "_remove_final_layer_norm": False,
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "max_position_embeddings": 2048,
    "vocab_size": 50272,
}
PYTHIA = {
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "use_parallel_residual": True,
}
NEMOTRON_4 = {
    "model_type": "nemotron",
    "architectures": ["NemotronForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "relu2",
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "norm_eps": 1e-05,
    "num_key_value_heads": 8,
    "partial_rotary_factor": 0.5,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "vocab_size": 256000,
}
OLMO_2 = LLAMA_2 | {
    "model_type": "olmo2",
    "architectures": ["Olmo2ForCausalLM"],
    "attention_bias": False,
    "rms_norm_eps": 1e-06,
    "rope_theta": 500000,
    "vocab_size": 100352,
}
SMOLLM2 = LLAMA_2 | {
    "attention_bias": False,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "rope_interleaved": False,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}


def sized(common: dict, hidden: int, layers: int, heads: int, mlp: int, **more) -> dict:
    """`common` with a model's own sizes."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return common | sizes | {"intermediate_size": mlp} | more


def opt(hidden: int, layers: int, heads: int) -> dict:
    """An OPT of this size."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return OPT | sizes | {"ffn_dim": 4 * hidden, "word_embed_proj_dim": hidden}


def qwen2(*sizes: int, kv: int, vocabulary: int, length: int, **more) -> dict:
    """A Qwen2.5 of these sizes."""
    more = {"tie_word_embeddings": vocabulary == 151936, "max_window_layers": sizes[1], "sliding_window": length} | more
    return sized(QWEN, *sizes, num_key_value_heads=kv, vocab_size=vocabulary, max_position_embeddings=length, **more)


CONFIGS = {
    "llama_2_7b": sized(LLAMA_2, 4096, 32, 32, 11008, num_key_value_heads=32),
    "llama_2_13b": sized(LLAMA_2, 5120, 40, 40, 13824, num_key_value_heads=40),
    "llama_3.1_8b": sized(LLAMA_3_1, 4096, 32, 32, 14336),
    "llama_3.1_70b": sized(LLAMA_3_1, 8192, 80, 64, 28672),
    "mistral_7b": sized(MISTRAL, 4096, 32, 32, 14336),
    "qwen2.5_0.5b": qwen2(896, 24, 14, 4864, kv=2, vocabulary=151936, length=32768),
    "qwen2.5_1.5b": qwen2(1536, 28, 12, 8960, kv=2, vocabulary=151936, length=131072),
    "qwen2.5_3b": qwen2(2048, 36, 16, 11008, kv=2, vocabulary=151936, length=32768),
    "qwen2.5_7b": qwen2(3584, 28, 28, 18944, kv=4, vocabulary=152064, length=131072),
    "qwen2.5_14b": qwen2(5120, 48, 40, 13824, kv=8, vocabulary=152064, length=131072, rms_norm_eps=1e-05),
    "qwen3_0.6b": sized(QWEN_3, 1024, 28, 16, 3072, tie_word_embeddings=True, max_window_layers=28),
    "qwen3_1.7b": sized(QWEN_3, 2048, 28, 16, 6144, tie_word_embeddings=True, max_window_layers=28),
    "qwen3_4b": sized(QWEN_3, 2560, 36, 32, 9728, tie_word_embeddings=True, max_window_layers=36),
    "qwen3_8b": sized(QWEN_3, 4096, 36, 32, 12288, tie_word_embeddings=False, max_window_layers=36),
    "gemma_2_2b": sized(GEMMA_2, 2304, 26, 8, 9216, num_key_value_heads=4),
    "gemma_2_9b": sized(GEMMA_2, 3584, 42, 16, 14336, num_key_value_heads=8),
    "opt_125m": opt(768, 12, 12),
    "opt_1.3b": opt(2048, 24, 32),
    "opt_6.7b": opt(4096, 32, 32),
    "opt_13b": opt(5120, 40, 40),
    "pythia_70m": sized(PYTHIA, 512, 6, 8, 2048, vocab_size=50304),
    "pythia_160m": sized(PYTHIA, 768, 12, 12, 3072, vocab_size=50304),
    "pythia_410m": sized(PYTHIA, 1024, 24, 16, 4096, vocab_size=50304),
    "pythia_1b": sized(PYTHIA, 2048, 16, 8, 8192, vocab_size=50304),
    "pythia_1.4b": sized(PYTHIA, 2048, 24, 16, 8192, vocab_size=50304),
    "pythia_2.8b": sized(PYTHIA, 2560, 32, 32, 10240, vocab_size=50304),
    "pythia_6.9b": sized(PYTHIA, 4096, 32, 32, 16384, vocab_size=50432),
    "pythia_12b": sized(PYTHIA, 5120, 36, 40, 20480, vocab_size=50688),
    "nemotron_4_15b": sized(NEMOTRON_4, 6144, 32, 48, 24576),
    "olmo_2_7b": sized(OLMO_2, 4096, 32, 32, 11008, num_key_value_heads=32),
    "olmo_2_13b": sized(OLMO_2, 5120, 40, 40, 13824, num_key_value_heads=40),
    "smollm2_135m": sized(SMOLLM2, 576, 30, 9, 1536, num_key_value_heads=3),
    "smollm2_360m": sized(SMOLLM2, 960, 32, 15, 2560, num_key_value_heads=5),
    "smollm2_1.7b": sized(SMOLLM2, 2048, 24, 32, 8192, num_key_value_heads=32, rope_theta=130000),
}

# To the last digit, as the Hub or the model's page says; `inv_freq` is counted by the Hub in Llama 2, the tied head in some
# repositories of Qwen3, and by nobody here.
COUNTS = {
    "llama_2_7b": 6_738_415_616,
    "llama_2_13b": 13_015_864_320,
    "llama_3.1_8b": 8_030_261_248,
    "llama_3.1_70b": 70_553_706_496,
    "mistral_7b": 7_241_732_096,
    "qwen2.5_0.5b": 494_032_768,
    "qwen2.5_1.5b": 1_543_714_304,
    "qwen2.5_3b": 3_085_938_688,
    "qwen2.5_7b": 7_615_616_512,
    "qwen2.5_14b": 14_770_033_664,
    "qwen3_0.6b": 596_049_920,
    "qwen3_1.7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "gemma_2_2b": 2_614_341_888,
    "gemma_2_9b": 9_241_705_984,
    "pythia_70m": 70_426_624,
    "pythia_160m": 162_322_944,
    "pythia_410m": 405_334_016,
    "pythia_1b": 1_011_781_632,
    "pythia_1.4b": 1_414_647_808,
    "pythia_2.8b": 2_775_208_960,
    "pythia_6.9b": 6_857_302_016,
    "pythia_12b": 11_846_072_320,
    "olmo_2_7b": 7_298_617_344,
    "olmo_2_13b": 13_716_198_400,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1.7b": 1_711_376_384,
}
# arXiv 2304.01373, Table 1.
WITHOUT_EMBEDDINGS = {
    "pythia_70m": 18_915_328,
    "pythia_160m": 85_056_000,
    "pythia_410m": 302_311_424,
    "pythia_1b": 805_736_448,
    "pythia_1.4b": 1_208_602_624,
    "pythia_2.8b": 2_517_652_480,
    "pythia_6.9b": 6_444_163_072,
    "pythia_12b": 11_327_027_200,
}
# Published only as "125M" and the like: the number, what one unit of its last digit is, and what it counts.
ROUNDED = {
    "opt_125m": (125, 1e6, "total"),
    "opt_1.3b": (13, 1e8, "total"),
    "opt_6.7b": (67, 1e8, "total"),
    "opt_13b": (13, 1e9, "total"),
    "nemotron_4_15b": (125, 1e8, "non_embedding"),
}
