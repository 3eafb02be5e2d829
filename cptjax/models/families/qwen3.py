"""Qwen3 (transformers' Qwen3ForCausalLM): Qwen2 with a norm of each query and key head, and no biases unless said."""

from collections.abc import Mapping
from typing import Any

from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import Tensors, norm
from cptjax.models.families.llama import (
    KERNELS,
    OUTPUT_BIAS,
    QUERY_KEY_VALUE_BIASES,
    read_attention_bias,
    write_attention_bias,
)
from cptjax.models.families.qwen2 import read_upper_windows, write_upper_windows

# Also those of Gemma 3.
QUERY_KEY_NORMS: Tensors = {
    **norm("layers.attention.query_norm", "model.layers.{i}.self_attn.q_norm"),
    **norm("layers.attention.key_norm", "model.layers.{i}.self_attn.k_norm"),
}


def _read(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    return read_upper_windows(fields, values) | read_attention_bias(fields, values)


def _write(config: DecoderConfig) -> dict[str, Any]:
    return write_upper_windows(config) | write_attention_bias(config)


QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    defaults={
        "num_key_value_heads": 32,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    },
    fixed={"hidden_act": "silu"},
    read_special=_read,
    write_special=_write,
    tensors=KERNELS | QUERY_KEY_VALUE_BIASES | OUTPUT_BIAS | QUERY_KEY_NORMS,
    constants={"query_key_norm": "head"},
)
