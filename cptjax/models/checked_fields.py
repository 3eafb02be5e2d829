"""Checks of one field of a config (a dataclass), which name it and its value."""

from typing import Any

from cptjax.errors import ConfigurationError


def require_positive(config: Any, *names: str) -> None:
    """Refuses fields that are not numbers above 0.

    Raises:
        ConfigurationError: naming the field.
    """
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ConfigurationError(f"model config: {name} = {value!r}; it must be a number above 0.")


def require_one_of(config: Any, name: str, allowed: tuple[str | None, ...], what: str) -> None:
    """Refuses a field `name` that is none of `allowed`; `what` the config is stands before it in the error.

    Raises:
        ConfigurationError: with those that there are.
    """
    value = getattr(config, name)
    if value not in allowed:
        raise ConfigurationError(f"{what}: {name} = {value!r}; it must be one of {', '.join(map(str, allowed))}.")
