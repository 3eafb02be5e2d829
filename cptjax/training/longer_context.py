"""Going on from a checkpoint at a greater length than it was made for: what becomes of its rotary positions, and is exported."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.rope import read_scaling
from cptjax.models.rope_scaling import RopeScaling, YarnRope

STRETCHED_FROM = ("llama3", "yarn")  # the kinds that speak of the length before,
BEFORE = "original_max_position_embeddings"  # in this field


@dataclasses.dataclass(frozen=True)
class LongerContext:
    """What a run changes in the positions of the checkpoint it starts from; None leaves a part as it is.

    Attributes:
        maximum_length: the longest sequence from now on (max_position_embeddings of the exported config.json).
        rope_theta: the base of the rotary frequencies; a larger one slows all but the fastest ("NTK-aware" scaling, and the
            "adjusted base frequency" of arXiv 2309.16039). Of layers with a window of their own base (Gemma 3), only the others'.
        rope_scaling: how they are stretched, as a config.json says it: {"rope_type": "yarn", "factor": 4.0}, likewise "linear"
            and "llama3"; {"rope_type": "default"} takes a stretching away. Where "original_max_position_embeddings" is left out it
            is the checkpoint's length, if nothing stretches that already.
    """

    maximum_length: float | None = None
    rope_theta: float | None = None
    rope_scaling: Mapping[str, Any] | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """What is not left as it is, by its macro."""
        said = {"MAXIMUM_LENGTH": self.maximum_length, "ROPE_THETA": self.rope_theta, "ROPE_SCALING": self.rope_scaling}
        return {name: value for name, value in said.items() if value is not None}


def lengthened(config: DecoderConfig, context: LongerContext) -> DecoderConfig:
    """The checkpoint's `config` with what `context` changes.

    Raises:
        ConfigurationError: positions that are learned; a length or a base below the checkpoint's; a scaling that cannot be, or one
            that some versions of transformers would compute otherwise.
    """
    if not context.asked:
        return config
    theta = context.rope_theta
    if theta is not None and (
        isinstance(theta, bool) or not isinstance(theta, int | float) or not math.isfinite(theta)
    ):
        raise ConfigurationError(
            f"ROPE_THETA = {theta!r}; it is a number above the checkpoint's {config.rope_theta:.12g}."
        )
    if config.positions == "learned":
        name, value = next(iter(context.asked.items()))
        raise ConfigurationError(
            f"{name} = {value!r}, but this model has learned positions for {config.maximum_length} tokens and none beyond.\n"
            "  Only rotary positions can be made to reach further."
        )
    maximum = config.maximum_length
    if context.maximum_length is not None:
        maximum = whole_number(context.maximum_length, "MAXIMUM_LENGTH", minimum=1)
    if maximum < config.maximum_length:
        raise ConfigurationError(
            f"MAXIMUM_LENGTH = {maximum}, but the checkpoint was made for {config.maximum_length} already.\n"
            "  Leave it out: a shorter SEQUENCE_LENGTH needs no setting."
        )
    if context.rope_theta is not None and 0 < context.rope_theta < config.rope_theta:
        raise ConfigurationError(
            f"ROPE_THETA = {context.rope_theta:.12g}, but the checkpoint's base is {config.rope_theta:.12g} already.\n"
            "  A smaller one turns faster and reaches less far. Name a larger one, or None to leave it."
        )
    changed = dataclasses.replace(
        config,
        maximum_length=maximum,
        rope_theta=config.rope_theta if context.rope_theta is None else float(context.rope_theta),
        rope_scaling=config.rope_scaling if context.rope_scaling is None else _scaling(config, context.rope_scaling),
    )
    _refuse_two_factors(changed)
    return changed


def _scaling(config: DecoderConfig, said: Mapping[str, Any]) -> RopeScaling | None:
    kind = (said.get("rope_type") or said.get("type")) if isinstance(said, Mapping) else None
    if kind is None:
        raise ConfigurationError(
            f'ROPE_SCALING = {said!r}; write what config.json would say, {{"rope_type": "yarn", "factor": 4.0}} for one.\n'
            '  {"rope_type": "default"} takes a stretching away; None leaves it as it is.'
        )
    if kind in STRETCHED_FROM and config.rope_scaling and said.get(BEFORE) is None:
        raise ConfigurationError(
            f"ROPE_SCALING = {dict(said)!r}: the checkpoint's positions are stretched already, so the length before is not known.\n"
            f"  Say it: {BEFORE!r}."
        )
    return read_scaling({name: _number(name, x) for name, x in said.items()}, config.maximum_length, "ROPE_SCALING")


def _number(name: str, value: Any) -> Any:
    """Numbers as transformers wants them in a config.json: a length is whole, all others have a point."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return whole_number(value, f"ROPE_SCALING's {name}", minimum=1) if name == BEFORE else float(value)


def _refuse_two_factors(config: DecoderConfig) -> None:
    """Until August 2025 transformers took YaRN's factor from the ratio of the lengths, whatever it said (its issue 38224)."""
    scaling = config.rope_scaling
    if isinstance(scaling, YarnRope) and scaling.factor * scaling.original_length != config.maximum_length:
        reached, factor = scaling.factor * scaling.original_length, config.maximum_length / scaling.original_length
        raise ConfigurationError(
            f"YaRN with factor {scaling.factor:g} from {scaling.original_length} positions reaches {reached:.12g}, "
            f"and MAXIMUM_LENGTH is {config.maximum_length}.\n"
            "  Some versions of transformers take the factor from the lengths, and would compute another model.\n"
            f"  Set MAXIMUM_LENGTH = {reached:.12g}, or 'factor': {factor:.12g} in ROPE_SCALING."
        )


def changes(before: DecoderConfig, after: DecoderConfig) -> dict[str, Any]:
    """The fields of a model's config that differ, as plain data: name -> the value from now on."""
    old, new = before.to_json(), after.to_json()
    return {name: new[name] for name in new if new[name] != old.get(name)}


def describe_changes(changed: Mapping[str, Any]) -> str:
    """For people: what is not as the checkpoint had it."""

    def words(value: Any) -> str:
        if not isinstance(value, Mapping):
            return "none" if value is None else f"{value:,.12g}"
        kind = value.get("kind", "llama3")
        return f"{kind} ({', '.join(f'{name} {x}' for name, x in value.items() if name != 'kind' and x is not None)})"

    return "; ".join(f"{name} {words(value)}" for name, value in changed.items())


def check_length(length: int, config: DecoderConfig, random: bool) -> None:
    """Refuses rows that are longer than the model was made for.

    Args:
        random: the model is the gin file's own, not a checkpoint's.

    Raises:
        ConfigurationError: they are; says what can be done.
    """
    if length <= config.maximum_length:
        return
    if config.positions == "learned":
        way = "Its positions are learned, and there are none beyond: lower SEQUENCE_LENGTH."
    elif random:
        way = "Lower SEQUENCE_LENGTH, or raise config.DecoderConfig.maximum_length."
    else:
        way = (
            f"Lower SEQUENCE_LENGTH; or set MAXIMUM_LENGTH = {length} and how the rotary positions get there: ROPE_THETA\n"
            "  (a larger base), ROPE_SCALING ('linear', 'yarn' or 'llama3'), or neither (as they are).\n"
            '  docs/models.md says more under "Longer contexts".'
        )
    raise ConfigurationError(
        f"SEQUENCE_LENGTH = {length}, but the model was made for at most {config.maximum_length} positions.\n  {way}"
    )
