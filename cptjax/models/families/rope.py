"""Rotary settings in a config.json: `rope_theta`, `rope_scaling` (transformers 4) or `rope_parameters` (5)."""

from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig, Llama3Rope
from cptjax.models.families.fields import Fields

DEFAULT_THETA = 10000.0  # what transformers takes for Llama, Mistral and Qwen2 when the file is silent


def read_rope(fields: Fields, maximum_length: int) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` of a DecoderConfig.

    Raises:
        ConfigurationError: the two styles contradict each other, or a kind of scaling is not supported.
    """
    fields.expect("partial_rotary_factor", 1.0)
    fields.expect("rope_interleaved", False)
    theta = fields.take("rope_theta", None)
    scaling = dict(fields.take("rope_scaling", None) or {})
    parameters = dict(fields.take("rope_parameters", None) or {})
    for name in scaling.keys() & parameters.keys():
        if scaling[name] != parameters[name]:
            raise ConfigurationError(
                f"{fields.source}: rope_scaling and rope_parameters contradict each other on {name!r}."
            )
    inner = parameters | scaling
    inner_theta = inner.pop("rope_theta", None)
    if None not in (theta, inner_theta) and theta != inner_theta:
        raise ConfigurationError(f"{fields.source}: rope_theta = {theta}, but rope_parameters says {inner_theta}.")

    legacy = inner.pop("type", None)
    kind = inner.pop("rope_type", None) or legacy or "default"
    if inner.pop("partial_rotary_factor", None) not in (None, 1.0):
        raise ConfigurationError(f"{fields.source}: a partial_rotary_factor other than 1.0 is not supported.")
    stretched = None
    if kind == "llama3":
        try:
            stretched = Llama3Rope(
                factor=inner.pop("factor"),
                low_frequency_factor=inner.pop("low_freq_factor"),
                high_frequency_factor=inner.pop("high_freq_factor"),
                original_length=inner.pop("original_max_position_embeddings", None) or maximum_length,
            )
        except KeyError as error:
            raise ConfigurationError(f"{fields.source}: the llama3 rope scaling lacks {error}.") from None
    elif kind != "default":
        raise ConfigurationError(
            f"{fields.source}: rope scaling of type {kind!r} is not supported; supported are 'default' and 'llama3'."
        )
    unknown = sorted(name for name, value in inner.items() if value is not None)
    if unknown:
        raise ConfigurationError(f"{fields.source}: {unknown[0]!r} is not known in a rope scaling of type {kind!r}.")
    chosen = next((float(value) for value in (inner_theta, theta) if value is not None), DEFAULT_THETA)
    return {"rope_theta": chosen, "rope_scaling": stretched}


def write_rope(config: DecoderConfig) -> dict[str, Any]:
    """The fields in transformers 4's style, which 5 reads too."""
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_theta": config.rope_theta, "rope_scaling": None}
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_length,
        },
    }
