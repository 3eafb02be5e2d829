"""Llama 2 and 3 (transformers' LlamaForCausalLM), and what calls itself `llama`: TinyLlama, SmolLM, Yi, ..."""

from collections.abc import Mapping
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import (
    HEADS_FIRST,
    HEADS_LAST,
    HEADS_VECTOR,
    SAME_MATRIX,
    SAME_VECTOR,
    TRANSPOSED,
    Tensors,
)

# Also the tensors of Mistral and Qwen2.
KERNELS: Tensors = {
    "embedding.table": ("model.embed_tokens.weight", SAME_MATRIX),
    "layers.attention_norm.scale": ("model.layers.{i}.input_layernorm.weight", SAME_VECTOR),
    "layers.attention.query.kernel": ("model.layers.{i}.self_attn.q_proj.weight", HEADS_FIRST),
    "layers.attention.key.kernel": ("model.layers.{i}.self_attn.k_proj.weight", HEADS_FIRST),
    "layers.attention.value.kernel": ("model.layers.{i}.self_attn.v_proj.weight", HEADS_FIRST),
    "layers.attention.output.kernel": ("model.layers.{i}.self_attn.o_proj.weight", HEADS_LAST),
    "layers.mlp_norm.scale": ("model.layers.{i}.post_attention_layernorm.weight", SAME_VECTOR),
    "layers.mlp.gate.kernel": ("model.layers.{i}.mlp.gate_proj.weight", TRANSPOSED),
    "layers.mlp.up.kernel": ("model.layers.{i}.mlp.up_proj.weight", TRANSPOSED),
    "layers.mlp.down.kernel": ("model.layers.{i}.mlp.down_proj.weight", TRANSPOSED),
    "final_norm.scale": ("model.norm.weight", SAME_VECTOR),
    "head.kernel": ("lm_head.weight", TRANSPOSED),
}
QUERY_KEY_VALUE_BIASES: Tensors = {
    "layers.attention.query.bias": ("model.layers.{i}.self_attn.q_proj.bias", HEADS_VECTOR),
    "layers.attention.key.bias": ("model.layers.{i}.self_attn.k_proj.bias", HEADS_VECTOR),
    "layers.attention.value.bias": ("model.layers.{i}.self_attn.v_proj.bias", HEADS_VECTOR),
}
OUTPUT_BIAS: Tensors = {"layers.attention.output.bias": ("model.layers.{i}.self_attn.o_proj.bias", SAME_VECTOR)}
MLP_BIASES: Tensors = {
    "layers.mlp.gate.bias": ("model.layers.{i}.mlp.gate_proj.bias", SAME_VECTOR),
    "layers.mlp.up.bias": ("model.layers.{i}.mlp.up_proj.bias", SAME_VECTOR),
    "layers.mlp.down.bias": ("model.layers.{i}.mlp.down_proj.bias", SAME_VECTOR),
}


def read_attention_bias(fields: Fields, values: Mapping[str, Any], default: bool = False) -> dict[str, Any]:
    """`attention_bias` speaks of all four projections."""
    attention = fields.take("attention_bias", default)
    return {"query_key_value_bias": attention, "output_bias": attention}


def write_attention_bias(config: DecoderConfig) -> dict[str, Any]:
    """The inverse.

    Raises:
        ConfigurationError: only some of the projections have one.
    """
    if config.query_key_value_bias != config.output_bias:
        raise ConfigurationError(
            "a config.json cannot express query_key_value_bias != output_bias: its attention_bias means both."
        )
    return {"attention_bias": config.query_key_value_bias}


def read_biases(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    """`attention_bias` and `mlp_bias`."""
    return read_attention_bias(fields, values) | {"mlp_bias": fields.take("mlp_bias", False)}


def write_biases(config: DecoderConfig) -> dict[str, Any]:
    """The inverse."""
    return write_attention_bias(config) | {"mlp_bias": config.mlp_bias}


LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    defaults={
        "num_key_value_heads": None,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
    },
    fixed={"hidden_act": "silu"},
    read_special=read_biases,
    write_special=write_biases,
    tensors=KERNELS | QUERY_KEY_VALUE_BIASES | OUTPUT_BIAS | MLP_BIASES,
)
