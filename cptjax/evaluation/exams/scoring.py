"""Asks in batches of few shapes: nats of every continuation, with bounded memory however many are asked."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from cptjax.evaluation.exams.asking import Ask
from cptjax.evaluation.loss import everywhere
from cptjax.models.config import DecoderConfig
from cptjax.models.continuations import continuation_nats
from cptjax.models.model import Params
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows

BATCH_TOKENS = 4096  # positions at once where the mesh does not cut the batch
WAITING = 1024  # asks that wait for others to share rows with
SHORTEST_ROW = 256

Numbered = tuple[int, Ask]
Row = list[Numbered]  # what shares a row
Scored = list[tuple[int, np.ndarray]]


def score_asks(
    params: Params, config: DecoderConfig, numerics: Numerics, mesh: Mesh, asks: Iterable[Ask]
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the ask, float64 nats of each of its continuations), in the order in which they are scored.

    Rows hold as many asks as fit, and their lengths are powers of two, so that a few shapes serve all. WAITING asks wait
    (more on a large mesh), and two batches are under way.
    """
    nats = _build_nats(config, numerics)
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    under_way: list[Callable[[], Scored]] = []

    def begin(length: int, part: Sequence[Row]) -> None:
        rows = rows_at_once(length, ways)
        batch = as_batch(part, rows, length)
        placed = place_rows(lambda wanted: {name: array[wanted] for name, array in batch.items()}, rows, mesh)
        scored = nats(params, placed)
        under_way.append(lambda: _of_each(part, np.asarray(everywhere(scored), np.float64)))

    for length, part in batches_of(enumerate(asks), ways):
        begin(length, part)
        if len(under_way) > 1:
            yield from under_way.pop(0)()
    for finish in under_way:
        yield from finish()


def batches_of(asks: Iterable[Numbered], ways: int) -> Iterator[tuple[int, list[Row]]]:
    """(length of the rows, rows) of each batch. Those that are not full wait for more asks, as long as more come."""
    waiting: list[Numbered] = []
    enough = max(WAITING, 8 * rows_at_once(SHORTEST_ROW, ways))
    for ask in asks:
        waiting.append(ask)
        if len(waiting) >= enough:
            rows, waiting = packed(waiting), []
            for length, same in rows.items():
                most = rows_at_once(length, ways)
                full = len(same) // most * most
                # Most of those who wait must not wait for ever: then a batch is begun that is not full.
                full = full or (most if sum(map(len, same)) > enough // 2 else 0)
                yield from ((length, same[first : first + most]) for first in range(0, full, most))
                waiting += [ask for row in same[full:] for ask in row]
    for length, same in packed(waiting).items():
        most = rows_at_once(length, ways)
        yield from ((length, same[first : first + most]) for first in range(0, len(same), most))


def packed(asks: Sequence[Numbered]) -> dict[int, list[Row]]:
    """By length the rows that hold all asks: the largest first, each in the first row that has room for it."""
    rows: list[Row] = []
    lengths: list[int] = []
    room: list[list[int]] = []  # positions and targets left in each row
    for numbered in sorted(asks, key=lambda each: (-_size(each[1])[0], each[0])):
        size, targets = _size(numbered[1])
        at = next((i for i, (free, left) in enumerate(room) if size <= free and targets <= left), None)
        if at is None:
            at, length = len(rows), row_length(max(size, targets))
            rows.append([])
            lengths.append(length)
            room.append([length, length])
        rows[at].append(numbered)
        room[at][0] -= size
        room[at][1] -= targets
    found: dict[int, list[Row]] = {}
    for length, row in zip(lengths, rows, strict=True):
        found.setdefault(length, []).append(row)
    return found


def row_length(size: int) -> int:
    """The power of two that a row is long whose largest ask has this size; small ones are several in a row."""
    return max(SHORTEST_ROW, 1 << (size - 1).bit_length())


def rows_at_once(length: int, ways: int) -> int:
    """Rows in a batch: a multiple of the ways that the mesh cuts it."""
    return ways * max(1, BATCH_TOKENS // (length * ways))


def as_batch(part: Sequence[Row], rows: int, length: int) -> dict[str, np.ndarray]:
    """The arrays of `continuation_nats`, filled up to `rows` rows of this length; what is empty weighs nothing."""
    names = ("inputs", "positions", "runs", "first", "last", "reader", "targets")
    batch = {name: np.zeros((rows, length), np.int32) for name in names}
    batch["last"] -= 1
    batch["weights"] = np.zeros((rows, length), np.float32)
    for number, row in enumerate(part):
        at = target = run = 0

        def put(tokens: Sequence[int], begins: int, first: int = 0, last: int = -1, number: int = number) -> None:
            nonlocal at, run
            run += 1
            here = slice(at, at + len(tokens))
            batch["inputs"][number, here], batch["runs"][number, here] = tokens, run
            batch["positions"][number, here] = np.arange(begins, begins + len(tokens))
            batch["first"][number, here], batch["last"][number, here] = first, last
            at += len(tokens)

        for _, ask in row:
            first, given = at, len(ask.given)
            put(ask.given, 0)
            for scored in ask.scored:
                here = slice(target, target + len(scored))
                batch["targets"][number, here], batch["weights"][number, here] = scored, 1.0
                batch["reader"][number, here] = [first + given - 1, *range(at, at + len(scored) - 1)]
                put(scored[:-1], given, first, first + given - 1)
                target += len(scored)
    return batch


@functools.lru_cache(maxsize=8)
def _build_nats(config: DecoderConfig, numerics: Numerics) -> Callable[[Params, dict], jax.Array]:
    """One compiled function for each model, for all exams."""

    def score_continuations(params: Params, batch: dict) -> jax.Array:
        return continuation_nats(params, config, numerics, batch)

    return jax.jit(score_continuations)


def _of_each(part: Sequence[Row], scored: np.ndarray) -> Scored:
    found = []
    for row, values in zip(part, scored, strict=False):
        at = 0
        for number, ask in row:
            ends = at + np.cumsum([len(each) for each in ask.scored])
            found.append((number, np.add.reduceat(values[: ends[-1]], [at, *ends[:-1]])))
            at = int(ends[-1])
    return found


def _size(ask: Ask) -> tuple[int, int]:
    """Positions and targets of an ask."""
    targets = sum(map(len, ask.scored))
    return len(ask.given) + targets - len(ask.scored), targets
