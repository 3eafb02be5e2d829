"""Progress of work that is counted item by item: a live bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from cptjax.reporting.progress import duration

_FIRST_SECONDS = 10.0  # work that is done sooner is not told of in a log
_LOG_SECONDS = 30.0  # between lines after the first


def watch(
    items: Iterable[Any],
    total: int | None,
    what: str,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Any]:
    """The items, one after another, while `what` and how far it has got are shown on `stream` (stdout)."""
    stream = sys.stdout if stream is None else stream
    if stream.isatty():
        yield from _live(items, total, what, stream)
        return
    begin = told = clock()
    for done, item in enumerate(items, start=1):
        yield item
        moment = clock()
        if moment - told >= (_LOG_SECONDS if told > begin else _FIRST_SECONDS) and done != total:
            told = moment
            print(_line(what, done, total, moment - begin), file=stream, flush=True)


def _line(what: str, done: int, total: int | None, seconds: float) -> str:
    if total is None:
        return f"  {what}: {done:,} in {duration(seconds)}"
    return f"  {what}: {done:,} of {total:,}  ETA {duration(seconds / done * (total - done))}"


def _live(items: Iterable[Any], total: int | None, what: str, stream: TextIO) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        yield from progress.track(items, total=total, description=what)
