"""Qwen2 and Qwen2.5 (transformers' Qwen2ForCausalLM): biases on query, key, value; windows, if any, on some layers."""

from collections.abc import Mapping
from typing import Any

from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.llama import KERNELS, QUERY_KEY_VALUE_BIASES
from cptjax.models.families.windows import FULL, SLIDING, read_windows, write_windows


def read_upper_windows(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    """Windows if `use_sliding_window`, on the layers that `layer_types` says, or else from `max_window_layers` on."""
    used = fields.take("use_sliding_window", False)
    width = fields.take("sliding_window", 4096)
    first = fields.take("max_window_layers", 28)
    if not used:
        width = None
    layers = values["layers"]
    kinds = [SLIDING if width is not None and layer >= first else FULL for layer in range(layers)]
    return {"windows": read_windows(fields, layers, width, kinds)}


def write_upper_windows(config: DecoderConfig) -> dict[str, Any]:
    """The inverse."""
    written = write_windows(config, "qwen")
    kinds = written["layer_types"]
    # Those versions of transformers that do not know layer_types read max_window_layers.
    first = kinds.index(SLIDING) if SLIDING in kinds else config.layers
    return written | {"use_sliding_window": SLIDING in kinds, "max_window_layers": first}


QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    defaults={
        "num_key_value_heads": 32,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    },
    fixed={"hidden_act": "silu"},
    accepted={"use_mrope": False},
    read_special=read_upper_windows,
    write_special=write_upper_windows,
    tensors=KERNELS | QUERY_KEY_VALUE_BIASES,
    constants={"query_key_value_bias": True},
)
