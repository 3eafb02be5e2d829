"""Attention windows in a config.json: one width, and `layer_types` that says which layers have it."""

from collections.abc import Sequence
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.fields import Fields

FULL, SLIDING = "full_attention", "sliding_attention"


def read_windows(fields: Fields, layers: int, width: int | None, default: Sequence[str]) -> tuple[int | None, ...]:
    """The pattern of windows that `layer_types`, or else `default`, says.

    Raises:
        ConfigurationError: `layer_types` does not fit the layers, or names a window where there is none.
    """
    kinds = fields.take("layer_types", None)
    kinds = list(default) if kinds is None else kinds
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
    return repeating([width if kind == SLIDING else None for kind in kinds])


def repeating(layers: list[Any]) -> tuple[Any, ...]:
    """The shortest pattern that gives these layers (their windows) when repeated."""
    count = len(layers)
    periods = (period for period in range(1, count + 1) if count % period == 0)
    return next(tuple(layers[:period]) for period in periods if layers[:period] * (count // period) == layers)


def write_windows(config: DecoderConfig, model_type: str) -> dict[str, Any]:
    """`sliding_window` and `layer_types`.

    Raises:
        ConfigurationError: there are windows of several widths.
    """
    windows = list(config.windows) * (config.layers // len(config.windows))
    widths = sorted({window for window in windows if window is not None})
    if len(widths) > 1:
        raise ConfigurationError(f"a {model_type} config.json cannot express windows of several widths: {widths}.")
    kinds = [FULL if window is None else SLIDING for window in windows]
    return {"sliding_window": widths[0] if widths else None, "layer_types": kinds}
