"""OLMo 2 (transformers' Olmo2ForCausalLM): norms after the blocks only, and over whole queries and keys."""

from cptjax.models.families.family import Family
from cptjax.models.families.layout import HEADS_VECTOR, norm
from cptjax.models.families.llama import (
    KERNELS,
    OUTPUT_BIAS,
    QUERY_KEY_VALUE_BIASES,
    read_attention_bias,
    write_attention_bias,
)

OLMO_2 = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    defaults={
        "num_key_value_heads": None,
        "head_dim": None,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
    },
    fixed={"hidden_act": "silu"},
    read_special=read_attention_bias,
    write_special=write_attention_bias,
    tensors={
        **KERNELS,
        **QUERY_KEY_VALUE_BIASES,
        **OUTPUT_BIAS,
        **norm("layers.attention_post_norm", "model.layers.{i}.post_attention_layernorm"),
        **norm("layers.mlp_post_norm", "model.layers.{i}.post_feedforward_layernorm"),
        "layers.attention.query_norm.scale": ("model.layers.{i}.self_attn.q_norm.weight", HEADS_VECTOR),
        "layers.attention.key_norm.scale": ("model.layers.{i}.self_attn.k_norm.weight", HEADS_VECTOR),
    },
    constants={"norm_placement": "after", "query_key_norm": "projection"},
)
