"""Rotary settings in a config.json: `rope_theta`, `rope_scaling` (transformers 4) or `rope_parameters` (5)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.fields import Fields
from cptjax.models.rope_scaling import LinearRope, Llama3Rope, RopeScaling, YarnRope

KINDS = ("linear", "llama3", "yarn")


@dataclasses.dataclass(frozen=True)
class RopeFields:
    """Where a family's config says how positions turn queries and keys, and what silence means.

    Attributes:
        theta: the field of the base, and `default_theta`.
        fraction: the field of the rotated share, and `default_fraction`; None if all must be turned.
        original: a field outside the scaling that holds the length before it.
        kinds: the stretchings that transformers computes in this family.
    """

    theta: str = "rope_theta"
    default_theta: float = 10000.0
    fraction: str | None = None
    default_fraction: float = 1.0
    original: str | None = None
    kinds: tuple[str, ...] = KINDS


PLAIN = RopeFields()


def read_rope(fields: Fields, maximum_length: int, rope: RopeFields = PLAIN) -> dict[str, Any]:
    """`rope_theta`, `rope_scaling` and `rotary_fraction` of a DecoderConfig.

    Raises:
        ConfigurationError: the two styles contradict each other, or a kind of scaling is not supported.
    """
    if rope.fraction is None:
        fields.expect("partial_rotary_factor", 1.0)
    fields.expect("rope_interleaved", False)
    theta = fields.take(rope.theta, None)
    fraction = None if rope.fraction is None else fields.take(rope.fraction, None)
    original = None if rope.original is None else fields.take(rope.original, None)
    scaling = dict(fields.take("rope_scaling", None) or {})
    parameters = dict(fields.take("rope_parameters", None) or {})
    for name in scaling.keys() & parameters.keys():
        if scaling[name] != parameters[name]:
            raise ConfigurationError(
                f"{fields.source}: rope_scaling and rope_parameters contradict each other on {name!r}."
            )
    inner = parameters | scaling
    inner_theta, inner_fraction = inner.pop("rope_theta", None), inner.pop("partial_rotary_factor", None)
    if None not in (theta, inner_theta) and theta != inner_theta:
        raise ConfigurationError(f"{fields.source}: {rope.theta} = {theta}, but rope_parameters says {inner_theta}.")
    if None not in (fraction, inner_fraction) and fraction != inner_fraction:
        raise ConfigurationError(
            f"{fields.source}: {rope.fraction} = {fraction}, but rope_parameters says {inner_fraction}."
        )
    if rope.fraction is None and inner_fraction not in (None, 1.0):
        raise ConfigurationError(f"{fields.source}: a partial_rotary_factor other than 1.0 is not supported.")

    stretched = read_scaling(inner, maximum_length, fields.source, rope.kinds, original)
    said = {"rope_theta": rope.default_theta, "rope_scaling": stretched, "rotary_fraction": rope.default_fraction}
    for name, values in {"rope_theta": (inner_theta, theta), "rotary_fraction": (inner_fraction, fraction)}.items():
        said[name] = next((float(value) for value in values if value is not None), said[name])
    return said


def read_scaling(
    said: Mapping[str, Any],
    maximum_length: int,
    source: str,
    kinds: tuple[str, ...] = KINDS,
    original: int | None = None,
) -> RopeScaling | None:
    """What a `rope_scaling` says: its `rope_type` and that type's fields.

    Args:
        maximum_length: the original length where none is said.
        kinds: those that are supported; original: the length before, said outside.

    Raises:
        ConfigurationError: a kind that is not supported, or a field that is missing or not known.
    """
    inner = dict(said)
    legacy = inner.pop("type", None)
    kind = inner.pop("rope_type", None) or legacy or "default"
    if kind in ("llama3", "yarn") and original is not None:
        inner["original_max_position_embeddings"] = original  # the outer one has priority in transformers
    if kind not in ("default", *kinds):
        supported = ", ".join(map(repr, ("default", *kinds)))
        raise ConfigurationError(f"{source}: rope scaling of type {kind!r} is not supported; supported: {supported}.")
    stretched = _read_kind(kind, inner, maximum_length, source)
    unknown = sorted(name for name, value in inner.items() if value is not None)
    if unknown:
        raise ConfigurationError(f"{source}: {unknown[0]!r} is not known in a rope scaling of type {kind!r}.")
    return stretched


def _read_kind(kind: str, inner: dict[str, Any], maximum_length: int, source: str) -> RopeScaling | None:
    """The stretching; takes what it reads from `inner`."""
    try:
        if kind == "linear":
            return LinearRope(inner.pop("factor"))
        if kind == "llama3":
            return Llama3Rope(
                factor=inner.pop("factor"),
                low_frequency_factor=inner.pop("low_freq_factor"),
                high_frequency_factor=inner.pop("high_freq_factor"),
                original_length=inner.pop("original_max_position_embeddings", None) or maximum_length,
            )
        if kind == "yarn":
            # mscale and mscale_all_dim (DeepSeek's) are left over, and refused.
            truncate = inner.pop("truncate", None)
            return YarnRope(
                factor=inner.pop("factor"),
                original_length=inner.pop("original_max_position_embeddings", None) or maximum_length,
                fast=inner.pop("beta_fast", None) or 32.0,
                slow=inner.pop("beta_slow", None) or 1.0,
                attention_factor=inner.pop("attention_factor", None),
                truncate=True if truncate is None else truncate,
            )
    except KeyError as error:
        raise ConfigurationError(f"{source}: the {kind} rope scaling lacks {error}.") from None
    return None


def write_rope(config: DecoderConfig, rope: RopeFields = PLAIN) -> dict[str, Any]:
    """The fields in transformers 4's style, which 5 reads too."""
    written = {rope.theta: config.rope_theta, "rope_scaling": write_scaling(config.rope_scaling)}
    if rope.fraction is not None:
        written[rope.fraction] = config.rotary_fraction
    if rope.original is not None:
        written[rope.original] = getattr(config.rope_scaling, "original_length", config.maximum_length)
    return written


def write_scaling(scaling: RopeScaling | None) -> Mapping[str, Any] | None:
    """Their `rope_scaling`."""
    if scaling is None:
        return None
    if isinstance(scaling, LinearRope):
        return {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, Llama3Rope):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_length,
        }
    written = {
        "rope_type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_length,
        "beta_fast": scaling.fast,
        "beta_slow": scaling.slow,
    }
    if scaling.attention_factor is not None:
        written["attention_factor"] = scaling.attention_factor
    return written if scaling.truncate else written | {"truncate": False}
