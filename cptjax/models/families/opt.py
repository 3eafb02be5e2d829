"""OPT (transformers' OPTForCausalLM): learned positions two rows into their table; the 350M model norms after the sums."""

from collections.abc import Mapping
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import RENAMED, Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import HEADS_FIRST, HEADS_LAST, HEADS_VECTOR, SAME_MATRIX, TRANSPOSED, linear, norm

LAYER = "model.decoder.layers.{i}"
OF_ATTENTION, OF_MLP = f"{LAYER}.self_attn_layer_norm", f"{LAYER}.final_layer_norm"
BIASES = ("query_key_value_bias", "output_bias", "mlp_bias")


def _read(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    width = fields.take("word_embed_proj_dim", None)
    return dict.fromkeys(BIASES, fields.take("enable_bias", True)) | {
        "norm_placement": "before" if fields.take("do_layer_norm_before", True) else "sum",
        "embedding_width": None if width == values["hidden"] else width,
    }


def _write(config: DecoderConfig) -> dict[str, Any]:
    if len({getattr(config, name) for name in BIASES}) > 1:
        raise ConfigurationError(f"an opt config.json cannot express {', '.join(BIASES)} that differ.")
    return {
        "enable_bias": config.mlp_bias,
        "do_layer_norm_before": config.norm_placement == "before",
        "word_embed_proj_dim": config.embedding_width or config.hidden,
    }


OPT = Family(
    model_type="opt",
    architecture="OPTForCausalLM",
    defaults={"activation_function": "relu", "tie_word_embeddings": True, "max_position_embeddings": 2048},
    fixed={"_remove_final_layer_norm": False, "layer_norm_elementwise_affine": True},
    accepted={"learned_embeddings": True, "scale_embeddings": False},
    read_special=_read,
    write_special=_write,
    tensors={
        "embedding.table": ("model.decoder.embed_tokens.weight", SAME_MATRIX),
        "positions.table": ("model.decoder.embed_positions.weight", SAME_MATRIX),
        "widen.kernel": ("model.decoder.project_in.weight", TRANSPOSED),
        # Before a block or after its sum: either way by the same name.
        **norm("layers.attention_norm", OF_ATTENTION, bias=True),
        **norm("layers.attention_post_norm", OF_ATTENTION, bias=True),
        **linear("layers.attention.query", f"{LAYER}.self_attn.q_proj", HEADS_FIRST, HEADS_VECTOR),
        **linear("layers.attention.key", f"{LAYER}.self_attn.k_proj", HEADS_FIRST, HEADS_VECTOR),
        **linear("layers.attention.value", f"{LAYER}.self_attn.v_proj", HEADS_FIRST, HEADS_VECTOR),
        **linear("layers.attention.output", f"{LAYER}.self_attn.out_proj", HEADS_LAST),
        **norm("layers.mlp_norm", OF_MLP, bias=True),
        **norm("layers.mlp_post_norm", OF_MLP, bias=True),
        **linear("layers.mlp.up", f"{LAYER}.fc1"),
        **linear("layers.mlp.down", f"{LAYER}.fc2"),
        **norm("final_norm", "model.decoder.final_layer_norm", bias=True),
        "narrow.kernel": ("model.decoder.project_out.weight", TRANSPOSED),
        "head.kernel": ("lm_head.weight", TRANSPOSED),
    },
    constants={"positions": "learned", "position_offset": 2, "norm": "layer", "norm_epsilon": 1e-5, "gated_mlp": False},
    renamed={
        ours: theirs for ours, theirs in RENAMED.items() if ours not in ("kv_heads", "head_dim", "mlp", "norm_epsilon")
    }
    | {"mlp": "ffn_dim"},
    activation="activation_function",
    rope=None,
    prefix="model.",
)
