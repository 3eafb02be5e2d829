"""Values against the annotations of the parameters they are bound to: a wrong kind is refused before anything runs."""

import collections.abc
import dataclasses
import inspect
import types
import typing
from typing import Any

from cptjax.configuration.names import shown
from cptjax.configuration.resolution import Resolution
from cptjax.configuration.statements import Macro, Reference, parts
from cptjax.errors import ConfigurationError

_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "True or False", type(None): "None"}
_SEQUENCES = (list, tuple, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)


def check_types(resolution: Resolution) -> None:
    """Refuses plain values (no references in them) that an annotation of their parameter rules out.

    Strings, numbers, True and False, None, lists and dicts are told apart; everything else an annotation may say is left
    to whoever receives the value.

    Raises:
        ConfigurationError: the first such value, by the macro or parameter that holds it, and where it was set.
    """
    for setting in resolution.settings:
        value, name, where = setting.binding.value, setting.binding.key, setting.binding.where
        while isinstance(value, Macro) and value.name in resolution.macros:
            binding = resolution.macros[value.name].binding
            value, name, where = binding.value, binding.key, binding.where
        if any(isinstance(part, Macro | Reference) for part in parts(value)):
            continue
        annotation = _annotations(setting.target.object).get(setting.binding.argument, Any)
        if not matches(value, annotation):
            raise ConfigurationError(f"{name} = {value!r} must be {described(annotation)}.\n  {shown(where)}")


def matches(value: Any, annotation: Any) -> bool:
    """Whether a plain value may be given where `annotation` stands; True where the annotation is of another kind."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, one) for one in arguments)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (annotation is float or float(value).is_integer())  # 2e6 is a whole number
    if dataclasses.is_dataclass(annotation):
        return False  # made by a function or a class that a reference names, never written out
    if annotation is str:
        return isinstance(value, str)
    if (origin or annotation) in _MAPPINGS:
        return isinstance(value, dict) and (
            not arguments or all(matches(each, arguments[1]) for each in value.values())
        )
    if (origin or annotation) in _SEQUENCES:
        return isinstance(value, list | tuple) and (not arguments or all(matches(each, arguments[0]) for each in value))
    return True


def described(annotation: Any) -> str:
    """An annotation in words: "a string, a list or None"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        words = list(dict.fromkeys(described(one) for one in arguments))
        return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
    if annotation in _NAMES:
        return _NAMES[annotation]
    if (origin or annotation) in _MAPPINGS:
        return "a dict" + (f" whose values are {_plural(arguments[1])}" if arguments else "")
    if (origin or annotation) in _SEQUENCES:
        return "a list"
    name = getattr(annotation, "__name__", str(annotation))
    return f"@...{name}()" if dataclasses.is_dataclass(annotation) else name


def _plural(annotation: Any) -> str:
    return {str: "strings", int: "whole numbers", float: "numbers"}.get(annotation, described(annotation))


def _annotations(target: Any) -> dict[str, Any]:
    """Name to annotation of a function's parameters or a dataclass's fields; none where they cannot be evaluated."""
    try:
        return typing.get_type_hints(target if not inspect.isclass(target) else _initializer(target))
    except (NameError, TypeError):
        return {}


def _initializer(kind: type) -> Any:
    return kind if "__annotations__" in vars(kind) else kind.__init__
