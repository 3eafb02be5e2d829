"""What a config.json may say, and what is refused by name because it would change the mathematics."""

import pytest

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig, Llama3Rope
from cptjax.models.families.family import correspondences
from cptjax.models.families.layout import HEADS_FIRST, HEADS_LAST, HEADS_VECTOR, TRANSPOSED
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.mistral import MISTRAL
from cptjax.models.families.qwen2 import QWEN2
from cptjax.models.families.registry import FAMILIES, family_of

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
CONFIGS = {"llama": LLAMA_2, "mistral": MISTRAL_1, "qwen2": QWEN}


def test_published_configs_are_read():
    assert LLAMA.read_config(LLAMA_2) == DecoderConfig(32000, 4096, 32, 32, 32, 128, 11008, 1e-5, maximum_length=4096)
    stretched = LLAMA.read_config(LLAMA_2 | {"rope_theta": 500000.0, "rope_scaling": LLAMA_3_STRETCH})
    assert stretched.rope_theta == 500000.0 and stretched.rope_scaling == Llama3Rope(8.0, 1.0, 4.0, 8192)
    assert MISTRAL.read_config(MISTRAL_1).windows == (4096,)
    qwen = QWEN2.read_config(QWEN)
    assert qwen.windows == (None,) and qwen.query_key_value_bias and not qwen.output_bias and qwen.head_dim == 64


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


def test_every_weight_has_its_tensors_in_the_right_layers():
    config = DecoderConfig(64, 16, 4, 4, 2, 4, 24, windows=(None, 4), query_key_value_bias=True)
    found = correspondences(QWEN2, config)
    kernels = [found[f"layers.pattern_{position}.mlp.up.kernel"].names for position in range(2)]
    assert kernels == [tuple(f"model.layers.{i}.mlp.up_proj.weight" for i in layers) for layers in ((0, 2), (1, 3))]
    names = [name for entry in found.values() for name in entry.names]
    assert len(names) == len(set(names)) == 3 + 4 * (2 + 7 + 3)
