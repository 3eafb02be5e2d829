"""Gemma 1, 2 and 3 (text): norms of 1 + scale, scaled embeddings; caps, windows and more norms as they came."""

import math
from collections.abc import Mapping
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.layout import Tensors, norm
from cptjax.models.families.llama import (
    KERNELS,
    OUTPUT_BIAS,
    QUERY_KEY_VALUE_BIASES,
    read_attention_bias,
    write_attention_bias,
)
from cptjax.models.families.qwen3 import QUERY_KEY_NORMS
from cptjax.models.families.rope import RopeFields, read_rope, write_rope
from cptjax.models.families.windows import FULL, SLIDING, read_windows, write_windows

GELU = "gelu_pytorch_tanh"
ALIKE = {"norm_unit_offset": True, "activation": "gelu_tanh"}
BOTH_NORMS = ALIKE | {"norm_placement": "both"}
ROPE_3 = RopeFields(default_theta=1e6)
LOCAL_THETA = 10000.0
DEFAULTS = {"rms_norm_eps": 1e-6, "head_dim": 256, "tie_word_embeddings": True}

PLAIN_TENSORS = KERNELS | QUERY_KEY_VALUE_BIASES | OUTPUT_BIAS
FOUR_NORMS: Tensors = {
    **norm("layers.attention_post_norm", "model.layers.{i}.post_attention_layernorm"),
    **norm("layers.mlp_norm", "model.layers.{i}.pre_feedforward_layernorm"),
    **norm("layers.mlp_post_norm", "model.layers.{i}.post_feedforward_layernorm"),
}


def _read_1(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    fields.expect("hidden_act", GELU)
    fields.expect("use_bidirectional_attention", False)
    return read_attention_bias(fields, values) | {"embedding_scale": math.sqrt(values["hidden"])}


def _read_first(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    """Gemma 1 was published with "gelu", by which its config.json alone means the approximation by tanh."""
    if fields.left.get("hidden_act") == "gelu":
        fields.take("hidden_act")
    return _read_1(fields, values)


def _read_caps(
    fields: Fields, values: Mapping[str, Any], attention: float | None, final: float | None
) -> dict[str, Any]:
    """What Gemma 2 and 3 have in common."""
    scalar = fields.take("query_pre_attn_scalar", 256)
    return _read_1(fields, values) | {
        "attention_scale": None if scalar == values["head_dim"] else scalar**-0.5,
        "attention_soft_cap": fields.take("attn_logit_softcapping", attention),
        "logit_soft_cap": fields.take("final_logit_softcapping", final),
    }


def _write_caps(config: DecoderConfig, model_type: str) -> dict[str, Any]:
    scale = config.attention_scale
    return {
        **write_attention_bias(config),
        **write_windows(config, model_type),
        "query_pre_attn_scalar": config.head_dim if scale is None else round(scale**-2),
        "attn_logit_softcapping": config.attention_soft_cap,
        "final_logit_softcapping": config.logit_soft_cap,
    }


def _read_2(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    layers = values["layers"]
    alternating = [FULL if layer % 2 else SLIDING for layer in range(layers)]
    window = fields.take("sliding_window", 4096)
    fields.expect("sliding_window_size", window)  # published with it; transformers reads the other
    windows = read_windows(fields, layers, window, alternating)
    return _read_caps(fields, values, 50.0, 30.0) | {"windows": windows}


def _read_3(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    layers = values["layers"]
    if fields.left.get("layer_types") is not None:
        fields.take("_sliding_window_pattern", None)
    else:  # transformers reads the other name alone, and takes 6
        fields.expect("_sliding_window_pattern", 6)
    period = fields.take("sliding_window_pattern", None) or 6
    kinds = [SLIDING if (layer + 1) % period else FULL for layer in range(layers)]
    windows = read_windows(fields, layers, fields.take("sliding_window", 4096), kinds)
    fields.expect("attn_logit_softcapping", None)  # transformers has the field and computes without it
    said = _read_caps(fields, values, None, None) | {"windows": windows}
    local = fields.take("rope_local_base_freq", None)
    parameters = dict(fields.take("rope_parameters", None) or {})
    if not parameters:
        outside = {name: fields.take(name, None) for name in ("rope_theta", "rope_scaling")}
        parameters = {FULL: outside.pop("rope_scaling") or {}}
        parameters[FULL] = {name: value for name, value in outside.items() if value is not None} | parameters[FULL]
    unknown = sorted(set(parameters) - {FULL, SLIDING})
    if unknown:
        raise ConfigurationError(
            f"{fields.source}: rope_parameters holds {unknown[0]!r}; known are {FULL} and {SLIDING}."
        )
    longest = values["maximum_length"]
    of_full, of_sliding = (
        read_rope(Fields({"rope_parameters": parameters.get(kind)}, fields.model_type, fields.source), longest, rope)
        for kind, rope in ((FULL, ROPE_3), (SLIDING, RopeFields(default_theta=local or LOCAL_THETA)))
    )
    if of_sliding["rope_scaling"] is not None:
        raise ConfigurationError(f"{fields.source}: a rope scaling in {SLIDING} layers is not supported.")
    if not getattr(of_full["rope_scaling"], "truncate", True):
        raise ConfigurationError(
            f"{fields.source}: a yarn rope scaling with truncate = False is not supported in a {fields.model_type} model:\n"
            "  transformers 5 overlooks it where layers have rope settings of their own."
        )
    return said | of_full | {"window_rope_theta": of_sliding["rope_theta"]}


def _write_3(config: DecoderConfig) -> dict[str, Any]:
    return _write_caps(config, "gemma3_text") | write_rope(config) | {"rope_local_base_freq": config.window_rope_theta}


GEMMA = Family(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    defaults=DEFAULTS | {"num_key_value_heads": 16, "max_position_embeddings": 8192},
    # transformers 4 ignores `hidden_act` where `hidden_activation` is not given, and 5 does not: they must agree.
    fixed={"hidden_activation": GELU},
    read_special=_read_first,
    write_special=lambda config: {"hidden_act": GELU} | write_attention_bias(config),
    tensors=PLAIN_TENSORS,
    constants=ALIKE,
)
GEMMA_2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    defaults=DEFAULTS | {"num_key_value_heads": 4, "max_position_embeddings": 8192},
    fixed={"hidden_act": GELU, "hidden_activation": GELU},
    read_special=_read_2,
    write_special=lambda config: _write_caps(config, "gemma2"),
    tensors=PLAIN_TENSORS | FOUR_NORMS,
    constants=BOTH_NORMS,
)
GEMMA_3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    defaults=DEFAULTS | {"num_key_value_heads": 4, "max_position_embeddings": 131072},
    fixed={"hidden_activation": GELU},
    read_special=_read_3,
    write_special=_write_3,
    tensors=PLAIN_TENSORS | FOUR_NORMS | QUERY_KEY_NORMS,
    constants=BOTH_NORMS | {"query_key_norm": "head"},
    rope=None,
)
