"""Stages as plain data, for gin files and command lines: what the macro BLENDS holds."""

from collections.abc import Mapping, Sequence

from cptjax.data.blend import ByTemperature, Fraction, LrFraction, Stage, Tokens, Trigger, is_share
from cptjax.errors import ConfigurationError

_KEYS = ("name", "weights", "sources", "temperature", "until", "until_lr", "ramp")


def stages(blends: Sequence[Mapping[str, object]]) -> list[Stage]:
    """Stages as plain data: what BLENDS holds, a mapping for each stage.

    Its keys: "name"; "weights" (source -> share), or "sources" (names) and "temperature"; "until", where it ends, and "ramp",
    how long its weights take to move from those before (numbers: below 1 of the run, above 1 tokens); or "until_lr", the
    share of the peak that the learning rate has fallen to.

    Raises:
        ConfigurationError: another key, or none of those that a stage needs.
    """
    if not isinstance(blends, list | tuple) or not all(isinstance(each, Mapping) for each in blends):
        raise ConfigurationError(
            f"BLENDS = {blends!r}: it is a list of stages,\n"
            "  like [{'name': 'general', 'weights': {'web': 3, 'books': 1}, 'until': 0.7}, {'name': 'law', 'weights': {'law': 1}}]."
        )
    return [_stage(each) for each in blends]


def _stage(written: Mapping[str, object]) -> Stage:
    given = dict(written)
    if unknown := [key for key in given if key not in _KEYS]:
        raise ConfigurationError(
            f"a stage of BLENDS has the key {unknown[0]!r}; the keys are {', '.join(_KEYS)}: {given}."
        )
    if "name" not in given or ("weights" in given) == ("sources" in given):
        raise ConfigurationError(f"a stage of BLENDS has a name, and either weights or sources: {given}.")
    if "temperature" in given and "sources" not in given:
        raise ConfigurationError(f"a stage of BLENDS has a temperature for its sources, and no sources: {given}.")
    if "until" in given and "until_lr" in given:
        raise ConfigurationError(f"a stage of BLENDS ends in one way, `until` or `until_lr`: {given}.")
    if not isinstance(given["name"], str):
        raise ConfigurationError(f"a stage of BLENDS has a name that is no text: {given}.")
    weights = given.get("weights", {})
    if "sources" in given:
        weights = ByTemperature(given["sources"], given.get("temperature", 1.0))
    elif not isinstance(weights, Mapping | ByTemperature):
        raise ConfigurationError(
            f"the weights of stage {given['name']!r} are {weights!r}: a share for each source's name."
        )
    until = (
        LrFraction(given["until_lr"]) if "until_lr" in given else _length(given.get("until"), given["name"], "until")
    )
    return Stage(given["name"], weights, until, _length(given.get("ramp"), given["name"], "ramp"))


def _length(value: object, stage: object, key: str) -> Trigger | None:
    if value is None or isinstance(value, Trigger):
        return value
    if not is_share(value) or not value or value == 1:
        raise ConfigurationError(
            f"stage {stage!r}: {key!r} is {value!r}; it is a number: below 1 a share of the run, above 1 tokens."
        )
    return Fraction(value) if value < 1 else Tokens(value)
