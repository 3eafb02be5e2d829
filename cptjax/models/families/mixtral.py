"""Mixtral (transformers' MixtralForCausalLM): Mistral with experts in all layers, whose shares add up to 1."""

from collections.abc import Mapping
from typing import Any

from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import RENAMED, Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import TRANSPOSED, Tensors
from cptjax.models.families.llama import KERNELS
from cptjax.models.families.rope import RopeFields

MIXTURE = "model.layers.{i}.block_sparse_moe"
EXPERTS: Tensors = {
    "layers.mlp.router.kernel": (f"{MIXTURE}.gate.weight", TRANSPOSED),
    "layers.mlp.experts.gate.kernel": (f"{MIXTURE}.experts.{{e}}.w1.weight", TRANSPOSED),
    "layers.mlp.experts.up.kernel": (f"{MIXTURE}.experts.{{e}}.w3.weight", TRANSPOSED),
    "layers.mlp.experts.down.kernel": (f"{MIXTURE}.experts.{{e}}.w2.weight", TRANSPOSED),
}


def read_router(fields: Fields) -> dict[str, Any]:
    """What both families say of experts and of their router's loss."""
    return {
        "experts_per_token": fields.take("num_experts_per_tok"),
        "router_loss": float(fields.take("router_aux_loss_coef", 0.001)),
        "adds_router_loss": fields.take("output_router_logits", False),
    }


def write_router(config: DecoderConfig) -> dict[str, Any]:
    """The inverse."""
    return {
        "num_experts_per_tok": config.experts_per_token,
        "router_aux_loss_coef": config.router_loss,
        "output_router_logits": config.adds_router_loss,
    }


def _read(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    fields.take("router_jitter_noise", None)  # a noise of training, as dropout is: none here
    return read_router(fields) | {"expert_mlp": values["mlp"], "windows": (fields.take("sliding_window", None),)}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return write_router(config) | {"sliding_window": config.windows[0]}


MIXTRAL = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    defaults={
        "num_key_value_heads": 8,
        "head_dim": None,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096 * 32,
    },
    fixed={"hidden_act": "silu"},
    read_special=_read,
    write_special=_write,
    tensors={ours: names for ours, names in KERNELS.items() if not ours.startswith("layers.mlp.")} | EXPERTS,
    renamed=RENAMED | {"experts": "num_local_experts"},
    rope=RopeFields(default_theta=1e6),
)
