"""Phi-3, Phi-3.5 and Phi-4 (transformers' Phi3ForCausalLM) without longrope: Llama with queries, keys and values in one
tensor, and gate and up in another."""

from collections.abc import Mapping
from typing import Any

from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import RENAMED, Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import QUERY_KEY_VALUE, Layout, fused
from cptjax.models.families.llama import KERNELS
from cptjax.models.families.rope import RopeFields

# Ours [hidden, heads, head_dim] and [hidden, mlp]; theirs one after another along heads, and along the width.
HEADS_JOINED = Layout((1, 2, 0), (2, 1), joint=0)
WIDTHS_JOINED = Layout((1, 0), (1, 1), joint=0)


def _read(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"windows": (fields.take("sliding_window", None),)}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {"sliding_window": config.windows[0]}


PHI_3 = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    defaults={
        "num_key_value_heads": None,
        "head_dim": None,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
    },
    fixed={"hidden_act": "silu", "attention_bias": False},
    read_special=_read,
    write_special=_write,
    tensors={
        **{ours: names for ours, names in KERNELS.items() if not ours.startswith(("layers.attention.", "layers.mlp."))},
        **fused(QUERY_KEY_VALUE, "model.layers.{i}.self_attn.qkv_proj", HEADS_JOINED),
        "layers.attention.output.kernel": KERNELS["layers.attention.output.kernel"],
        **fused(("layers.mlp.gate", "layers.mlp.up"), "model.layers.{i}.mlp.gate_up_proj", WIDTHS_JOINED),
        "layers.mlp.down.kernel": KERNELS["layers.mlp.down.kernel"],
    },
    renamed=RENAMED,
    # transformers knows no stretching here but longrope, and takes "yarn" for it.
    rope=RopeFields(fraction="partial_rotary_factor", original="original_max_position_embeddings", kinds=()),
)
