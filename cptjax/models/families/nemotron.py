"""Nemotron-4 and Minitron (transformers' NemotronForCausalLM): LayerNorm of 1 + scale, squared ReLU, half of a head turned."""

from cptjax.models.families.family import RENAMED, Family
from cptjax.models.families.layout import norm
from cptjax.models.families.llama import (
    KERNELS,
    MLP_BIASES,
    OUTPUT_BIAS,
    QUERY_KEY_VALUE_BIASES,
    read_biases,
    write_biases,
)
from cptjax.models.families.rope import RopeFields

NEMOTRON = Family(
    model_type="nemotron",
    architecture="NemotronForCausalLM",
    defaults={
        "num_key_value_heads": None,
        "head_dim": None,
        "norm_eps": 1e-5,
        "hidden_act": "relu2",
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
    },
    fixed={},
    read_special=read_biases,
    write_special=write_biases,
    tensors={
        **KERNELS,
        **QUERY_KEY_VALUE_BIASES,
        **OUTPUT_BIAS,
        **MLP_BIASES,
        **norm("layers.attention_norm", "model.layers.{i}.input_layernorm", bias=True),
        **norm("layers.mlp_norm", "model.layers.{i}.post_attention_layernorm", bias=True),
        **norm("final_norm", "model.norm", bias=True),
    },
    constants={"norm": "layer", "norm_unit_offset": True, "gated_mlp": False},
    renamed=RENAMED | {"norm_epsilon": "norm_eps"},
    activation="hidden_act",
    rope=RopeFields(fraction="partial_rotary_factor", default_fraction=0.5),
)
