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
_SHORTEST = 16  # positions of a text, and of what is read behind it
_FEWEST = 4  # continuations

# Positions of the text, of what is read behind it, and continuations: what a row is filled up to.
Shape = tuple[int, int, int]


def score_asks(
    params: Params, config: DecoderConfig, numerics: Numerics, mesh: Mesh, asks: Iterable[Ask]
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the ask, float64 nats of each of its continuations), in the order in which batches fill.

    Asks of about the same size wait for one another; when their batch is full it is scored. What is left at the end fills up
    the batches of larger ones. At most a batch of each shape waits, and two are under way.
    """
    nats = _build_nats(config, numerics)
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    waiting: dict[Shape, list[tuple[int, Ask]]] = {}
    under_way: list[Callable[[], list[tuple[int, np.ndarray]]]] = []

    def start(shape: Shape, part: Sequence[tuple[int, Ask]], rows: int) -> None:
        batch = as_batch([ask for _, ask in part], rows, shape)
        placed = place_rows(lambda wanted: {name: array[wanted] for name, array in batch.items()}, rows, mesh)
        scored = nats(params, placed)
        under_way.append(lambda: _of_each(part, np.asarray(everywhere(scored), np.float64)))

    for number, ask in enumerate(asks):
        shape = shape_of(ask)
        waiting.setdefault(shape, []).append((number, ask))
        if len(waiting[shape]) == rows_at_once(shape, ways):
            start(shape, waiting.pop(shape), rows_at_once(shape, ways))
            if len(under_way) > 1:
                yield from under_way.pop(0)()
    for shape, part in _gathered(waiting, ways):
        start(shape, part, _rows_of_last(len(part), rows_at_once(shape, ways), ways))
        if len(under_way) > 1:
            yield from under_way.pop(0)()
    for finish in under_way:
        yield from finish()


def shape_of(ask: Ask) -> Shape:
    """What the row of an ask is filled up to: sizes of 2 ** n and 1.5 * 2 ** n for the text, powers of two behind it."""
    rest = sum(map(len, ask.scored)) - len(ask.scored)
    return (
        _step(len(ask.given), _SHORTEST),
        0 if not rest else max(_SHORTEST, _power(rest)),
        max(_FEWEST, _power(len(ask.scored))),
    )


def rows_at_once(shape: Shape, ways: int) -> int:
    """Rows of this shape in a batch: a multiple of the ways that the mesh cuts it."""
    return ways * max(1, BATCH_TOKENS // (shape[0] + shape[1]))


def as_batch(asks: Sequence[Ask], rows: int, shape: Shape) -> dict[str, np.ndarray]:
    """The arrays of `continuation_nats`, filled up to `rows` rows of this shape; rows behind the asks weigh nothing."""
    length, rest, choices = shape
    batch = {name: np.zeros((rows, rest), np.int32) for name in ("tokens", "continuation", "offset")}
    batch |= {name: np.zeros((rows, rest + choices), np.int32) for name in ("targets", "reader")}
    batch["text"], batch["lengths"] = np.zeros((rows, length), np.int32), np.ones(rows, np.int32)
    batch["weights"] = np.zeros((rows, rest + choices), np.float32)
    for row, ask in enumerate(asks):
        given = len(ask.given)
        batch["text"][row, :given], batch["lengths"][row] = ask.given, given
        at = target = 0
        for number, scored in enumerate(ask.scored, start=1):
            read = len(scored) - 1
            mine, targets = slice(at, at + read), slice(target, target + read + 1)
            batch["tokens"][row, mine], batch["continuation"][row, mine] = scored[:-1], number
            batch["offset"][row, mine] = np.arange(read)
            batch["targets"][row, targets], batch["weights"][row, targets] = scored, 1.0
            batch["reader"][row, targets] = [given - 1, *range(length + at, length + at + read)]
            at, target = at + read, target + read + 1
    return batch


@functools.lru_cache(maxsize=8)
def _build_nats(config: DecoderConfig, numerics: Numerics) -> Callable[[Params, dict], jax.Array]:
    """One compiled function for each model, for all exams."""
    return jax.jit(lambda params, batch: continuation_nats(params, config, numerics, batch))


def _of_each(part: Sequence[tuple[int, Ask]], scored: np.ndarray) -> list[tuple[int, np.ndarray]]:
    found = []
    for (number, ask), row in zip(part, scored, strict=False):
        ends = np.cumsum([len(each) for each in ask.scored])
        found.append((number, np.add.reduceat(row[: ends[-1]], [0, *ends[:-1]])))
    return found


def _gathered(waiting: dict[Shape, list[tuple[int, Ask]]], ways: int) -> Iterator[tuple[Shape, list[tuple[int, Ask]]]]:
    """What is left of each shape: the largest first, its batch filled up with smaller ones that fit into its rows."""
    left = {shape: list(part) for shape, part in sorted(waiting.items(), reverse=True)}
    for shape in left:
        part = left[shape]
        for smaller in left:
            room = rows_at_once(shape, ways) - len(part)
            if smaller < shape and room > 0 and all(a <= b for a, b in zip(smaller, shape, strict=True)):
                part += left[smaller][:room] if part else []
                left[smaller] = left[smaller][room:] if part else left[smaller]
        if part:
            yield shape, part


def _rows_of_last(asks: int, most: int, ways: int) -> int:
    """A batch that is not full is as large as it has to be: a power of two for each way of the mesh."""
    return min(most, ways * _power(-(-asks // ways)))


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _step(size: int, shortest: int) -> int:
    """The smallest of `shortest`, 1.5 times it, twice it, 3 times it, ... that is no smaller than `size`."""
    whole = max(shortest, _power(size))
    return whole * 3 // 4 if whole > shortest and size <= whole * 3 // 4 else whole
