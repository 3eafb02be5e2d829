"""Numbers and lists as people write them in gin files."""

import numbers
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from cptjax.errors import ConfigurationError


def whole_number(value: Any, name: str, minimum: int = 0) -> int:
    """`value` as an int: 2000000, 2e6 and 2.0e6 are the same number.

    Args:
        value: what gin bound.
        name: the macro or parameter, for the message.
        minimum: the smallest value allowed.

    Raises:
        ConfigurationError: not a number, not whole, or below `minimum`.
    """
    whole = None
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        whole = int(value)
    elif isinstance(value, float) and value.is_integer():
        whole = int(Decimal(repr(value)))  # 1e23 means 10**23, not the double nearest to it
    if whole is None:
        raise ConfigurationError(f"{name} = {value!r} is not a whole number.\n  Write it like 2000000 or 2e6.")
    if whole < minimum:
        raise ConfigurationError(f"{name} = {value!r} is below {minimum}, the smallest value it can have.")
    return whole


def flat(where: Any) -> Iterator[Any]:
    """Each item of a list and of the lists in it, without None."""
    if isinstance(where, list | tuple):
        for item in where:
            yield from flat(item)
    elif where is not None:
        yield where
