"""Mistral (transformers' MistralForCausalLM): Llama's tensors, and one attention window for all layers."""

from collections.abc import Mapping
from typing import Any

from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.llama import KERNELS


def _read_window(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    # A file without the field means 4096, a null means no window.
    return {"windows": (fields.take("sliding_window", 4096),)}


def _write_window(config: DecoderConfig) -> dict[str, Any]:
    return {"sliding_window": config.windows[0]}


MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    defaults={
        "num_key_value_heads": 8,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096 * 32,
    },
    fixed={"hidden_act": "silu"},
    read_special=_read_window,
    write_special=_write_window,
    tensors=KERNELS,
)
