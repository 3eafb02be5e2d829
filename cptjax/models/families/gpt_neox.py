"""GPT-NeoX and Pythia (transformers' GPTNeoXForCausalLM): LayerNorm, parallel residual, a quarter of each head turned."""

from collections.abc import Mapping
from typing import Any

from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import RENAMED, Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import (
    HEADS_LAST,
    QUERY_KEY_VALUE,
    SAME_MATRIX,
    TRANSPOSED,
    Layout,
    fused,
    linear,
    norm,
)
from cptjax.models.families.llama import read_attention_bias, write_attention_bias
from cptjax.models.families.rope import RopeFields

LAYER = "gpt_neox.layers.{i}"
# In their tensor each head has its query, its key and its value: [heads, 3, head_dim, hidden].
BY_HEAD = Layout((1, 2, 0), (3, 1), joint=1, fresh=True)
BY_HEAD_VECTOR = Layout((0, 1), (3,), joint=1, fresh=True)


def _read(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    return read_attention_bias(fields, values, default=True) | {
        "parallel_residual": fields.take("use_parallel_residual", True)
    }


def _write(config: DecoderConfig) -> dict[str, Any]:
    return write_attention_bias(config) | {"use_parallel_residual": config.parallel_residual}


GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    defaults={
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
    },
    fixed={},
    read_special=_read,
    write_special=_write,
    tensors={
        "embedding.table": ("gpt_neox.embed_in.weight", SAME_MATRIX),
        **norm("layers.attention_norm", f"{LAYER}.input_layernorm", bias=True),
        **fused(QUERY_KEY_VALUE, f"{LAYER}.attention.query_key_value", BY_HEAD, BY_HEAD_VECTOR),
        **linear("layers.attention.output", f"{LAYER}.attention.dense", HEADS_LAST),
        **norm("layers.mlp_norm", f"{LAYER}.post_attention_layernorm", bias=True),
        **linear("layers.mlp.up", f"{LAYER}.mlp.dense_h_to_4h"),
        **linear("layers.mlp.down", f"{LAYER}.mlp.dense_4h_to_h"),
        **norm("final_norm", "gpt_neox.final_layer_norm", bias=True),
        "head.kernel": ("embed_out.weight", TRANSPOSED),
    },
    constants={"norm": "layer", "gated_mlp": False, "mlp_bias": True},
    renamed={ours: theirs for ours, theirs in RENAMED.items() if ours not in ("kv_heads", "head_dim")}
    | {"norm_epsilon": "layer_norm_eps"},
    activation="hidden_act",
    rope=RopeFields("rotary_emb_base", fraction="rotary_pct", default_fraction=0.25),
    prefix="gpt_neox.",
    derived=(".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
)
