"""Qwen2 and Qwen2.5 (transformers' Qwen2ForCausalLM): biases on query, key, value; windows, if any, on some layers."""

from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family
from cptjax.models.families.fields import Fields
from cptjax.models.families.llama import KERNELS, QUERY_KEY_VALUE_BIASES

FULL, SLIDING = "full_attention", "sliding_attention"


def _read_windows(fields: Fields, layers: int) -> dict[str, Any]:
    """Windows if `use_sliding_window`, on the layers that `layer_types` says, or else from `max_window_layers` on."""
    used = fields.take("use_sliding_window", False)
    width = fields.take("sliding_window", 4096)
    first = fields.take("max_window_layers", 28)
    kinds = fields.take("layer_types", None)
    if not used:
        width = None
    if kinds is None:
        kinds = [SLIDING if width is not None and layer >= first else FULL for layer in range(layers)]
    unknown = sorted(set(kinds) - {FULL, SLIDING})
    if unknown or len(kinds) != layers:
        raise ConfigurationError(
            f"{fields.source}: layer_types must name {FULL!r} or {SLIDING!r} for each of the {layers} layers; "
            f"it holds {unknown[0]!r}."
            if unknown
            else f"{fields.source}: layer_types has {len(kinds)} of {layers} layers."
        )
    if SLIDING in kinds and width is None:
        raise ConfigurationError(f"{fields.source}: layer_types names {SLIDING!r}, but no sliding_window is in use.")
    return {"query_key_value_bias": True, "windows": repeating([width if kind == SLIDING else None for kind in kinds])}


def repeating(windows: list[int | None]) -> tuple[int | None, ...]:
    """The shortest pattern that gives these windows when repeated over all layers."""
    count = len(windows)
    periods = (period for period in range(1, count + 1) if count % period == 0)
    return next(tuple(windows[:period]) for period in periods if windows[:period] * (count // period) == windows)


def _write_windows(config: DecoderConfig) -> dict[str, Any]:
    windows = list(config.windows) * (config.layers // len(config.windows))
    widths = sorted({window for window in windows if window is not None})
    if len(widths) > 1:
        raise ConfigurationError(f"a qwen2 config.json cannot express windows of several widths: {widths}.")
    # Those versions of transformers that do not know layer_types read max_window_layers.
    first = next((layer for layer, window in enumerate(windows) if window is not None), config.layers)
    return {
        "use_sliding_window": bool(widths),
        "sliding_window": widths[0] if widths else None,
        "max_window_layers": first,
        "layer_types": [FULL if window is None else SLIDING for window in windows],
    }


QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    defaults={
        "num_key_value_heads": 32,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    },
    fixed={"hidden_act": "silu"},
    read_special=_read_windows,
    write_special=_write_windows,
    tensors=KERNELS | QUERY_KEY_VALUE_BIASES,
)
