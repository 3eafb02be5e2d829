"""GPT-2 (transformers' GPT2LMHeadModel): learned positions, LayerNorm, biases everywhere, kernels not transposed."""

from collections.abc import Mapping
from typing import Any

from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import QUERY_KEY_VALUE, SAME_MATRIX, TRANSPOSED, Layout, fused, linear, norm

LAYER = "transformer.h.{i}"
# Their "Conv1D" holds [inputs, outputs], as we do.
COLUMNS_JOINED = Layout((0, 1, 2), (1, 2), joint=1)  # ours [hidden, heads, head_dim]
VECTOR_JOINED = Layout((0, 1), (2,), joint=0)
HEADS_MERGED = Layout((0, 1, 2), (2, 1))  # ours [heads, head_dim, hidden]


def _read(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    fields.take("reorder_and_upcast_attn", None)  # how it is computed, not what
    fields.take("n_ctx", None)  # n_positions once more
    return {"mlp": fields.take("n_inner", None) or 4 * values["hidden"]}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {"n_inner": config.mlp}


GPT_2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    defaults={
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
        "n_positions": 1024,
    },
    fixed={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    read_special=_read,
    write_special=_write,
    tensors={
        "embedding.table": ("transformer.wte.weight", SAME_MATRIX),
        "positions.table": ("transformer.wpe.weight", SAME_MATRIX),
        **norm("layers.attention_norm", f"{LAYER}.ln_1", bias=True),
        **fused(QUERY_KEY_VALUE, f"{LAYER}.attn.c_attn", COLUMNS_JOINED, VECTOR_JOINED),
        **linear("layers.attention.output", f"{LAYER}.attn.c_proj", HEADS_MERGED),
        **norm("layers.mlp_norm", f"{LAYER}.ln_2", bias=True),
        **linear("layers.mlp.up", f"{LAYER}.mlp.c_fc", SAME_MATRIX),
        **linear("layers.mlp.down", f"{LAYER}.mlp.c_proj", SAME_MATRIX),
        **norm("final_norm", "transformer.ln_f", bias=True),
        "head.kernel": ("lm_head.weight", TRANSPOSED),
    },
    constants={
        "positions": "learned",
        "norm": "layer",
        "gated_mlp": False,
        "query_key_value_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    },
    renamed={
        "vocabulary": "vocab_size",
        "hidden": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "norm_epsilon": "layer_norm_epsilon",
        "tied_embeddings": "tie_word_embeddings",
        "maximum_length": "n_positions",
    },
    activation="activation_function",
    rope=None,
    prefix="transformer.",
    derived=(".attn.bias", ".attn.masked_bias"),
)
