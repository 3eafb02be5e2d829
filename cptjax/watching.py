"""How work that takes a while is watched, without knowing by whom: what computes takes a `Watch`, what runs it gives one."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

# (items, how many there are or None, what they are) -> the same items, one after another.
Watch = Callable[[Iterable[Any], int | None, str], Iterator[Any]]


def unwatched(items: Iterable[Any], total: int | None, what: str) -> Iterator[Any]:
    """The items, seen by nobody."""
    yield from items
