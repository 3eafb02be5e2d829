"""Qwen3-MoE (transformers' Qwen3MoeForCausalLM): Qwen3 with experts in all layers, or in those that its config says."""

from collections.abc import Mapping
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import TRANSPOSED, Tensors
from cptjax.models.families.llama import read_attention_bias, write_attention_bias
from cptjax.models.families.mixtral import read_router, write_router
from cptjax.models.families.qwen3 import QWEN3
from cptjax.models.families.windows import repeating

LAYER = "model.layers.{i}.mlp"
EXPERTS: Tensors = {
    "layers.mlp.router.kernel": (f"{LAYER}.gate.weight", TRANSPOSED),
    "layers.mlp.experts.gate.kernel": (f"{LAYER}.experts.{{e}}.gate_proj.weight", TRANSPOSED),
    "layers.mlp.experts.up.kernel": (f"{LAYER}.experts.{{e}}.up_proj.weight", TRANSPOSED),
    "layers.mlp.experts.down.kernel": (f"{LAYER}.experts.{{e}}.down_proj.weight", TRANSPOSED),
}


def _read(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    named, local = fields.take("num_experts", None), fields.take("num_local_experts", None)  # transformers 4 and 5
    if None not in (named, local) and named != local:
        raise ConfigurationError(f"{fields.source}: num_experts = {named}, but num_local_experts = {local}.")
    experts = next((value for value in (named, local) if value is not None), 128)
    windows, dense = zip(*repeating(_layers(fields, values["layers"])), strict=True)
    if not experts or all(dense):
        raise ConfigurationError(
            f"{fields.source}: no layer has experts (num_experts, mlp_only_layers, decoder_sparse_step): make it a qwen3 model."
        )
    return {
        **read_router(fields),
        **read_attention_bias(fields, values),
        "experts": experts,
        "expert_mlp": fields.take("moe_intermediate_size", 768),
        "renormalised_experts": fields.take("norm_topk_prob", False),
        "windows": windows,
        "dense_layers": dense if any(dense) else (),
    }


def _layers(fields: Fields, layers: int) -> list[tuple[int | None, bool]]:
    """The window of each layer, and whether it has one MLP for all tokens."""
    used, width = fields.take("use_sliding_window", False), fields.take("sliding_window", 4096)
    first = fields.take("max_window_layers", None)
    if used and width is not None and first:
        raise ConfigurationError(
            f"{fields.source}: max_window_layers = {first} with use_sliding_window is not supported in a {fields.model_type} "
            "model: versions of transformers differ on which layers it gives a window."
        )
    step, dense = fields.take("decoder_sparse_step", 1), fields.take("mlp_only_layers", None) or []
    return [(width if used else None, layer in dense or (layer + 1) % step != 0) for layer in range(layers)]


def _write(config: DecoderConfig) -> dict[str, Any]:
    windows = set(config.windows)
    if len(windows) > 1:
        raise ConfigurationError("a qwen3_moe config.json cannot express windows that differ from layer to layer.")
    mixed = config.mixed_layers * (config.layers // len(config.windows))
    return {
        **write_router(config),
        **write_attention_bias(config),
        "num_experts": config.experts,
        "moe_intermediate_size": config.expert_mlp,
        "norm_topk_prob": config.renormalised_experts,
        "mlp_only_layers": [layer for layer, has in enumerate(mixed) if not has],
        "decoder_sparse_step": 1,
        "use_sliding_window": windows != {None},
        "sliding_window": config.windows[0],
        "max_window_layers": 0 if windows != {None} else config.layers,
    }


QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    defaults={
        "num_key_value_heads": 4,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    },
    fixed={"hidden_act": "silu"},
    accepted={"use_qk_norm": True, "qkv_bias": False, "shared_expert_intermediate_size": 0},
    read_special=_read,
    write_special=_write,
    tensors=QWEN3.tensors | EXPERTS,
    constants={"query_key_norm": "head"},
)
