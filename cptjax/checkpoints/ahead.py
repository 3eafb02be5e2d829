"""Work of two kinds in turns, done at once: a thread makes what comes next while the caller is busy with what it has."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")


def one_ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """The items, each made by a thread while the caller has the one before: two are held."""
    rest, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, rest, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, rest, end)
            yield item
