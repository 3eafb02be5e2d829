"""How likely texts go on in given ways: log-probabilities of continuations, in batches of few shapes."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from cptjax.evaluation.loss import everywhere
from cptjax.evaluation.own_samples import Model
from cptjax.evaluation.score import BATCH_TOKENS, padded_length, sequence_batch
from cptjax.models.config import DecoderConfig
from cptjax.models.numerics import Numerics
from cptjax.models.target_scores import target_scores
from cptjax.sharding.batches import place_rows
from cptjax.watching import Watch, unwatched

_ROOMS = tuple(8**i for i in range(1, 9))  # places of a row that are looked at: few shapes
_ENDS = (1, 4, 16)  # last tokens that share all that comes before them


class Request(NamedTuple):
    """A context, at least one token, and a continuation of it, likewise."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Answer(NamedTuple):
    """log p(continuation | context) in nats, and whether each of its tokens is the likeliest there."""

    log_probability: float
    greedy: bool


class _Row(NamedTuple):
    """What is computed once: tokens, and the requests that are those tokens and one more."""

    tokens: tuple[int, ...]
    requests: tuple[int, ...]


def score_continuations(
    model: Model, mesh: Mesh, requests: Sequence[Request], watch: Watch = unwatched
) -> list[Answer]:
    """The answer to each request, in order. Requests that differ in their last token alone are computed together.

    Memory is bounded by `score.BATCH_TOKENS` positions, and by the answers.
    """
    answers: list[Answer | None] = [None] * len(requests)
    rooms: dict[tuple[int, int, int], list[_Row]] = {}
    for row in _rows(requests):
        length = padded_length(len(row.tokens), model.config)
        longest = max(len(requests[i].continuation) for i in row.requests)
        room = min(length, next(room for room in _ROOMS if room >= longest))
        rooms.setdefault((length, room, next(n for n in _ENDS if n >= len(row.requests))), []).append(row)
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    parts = []
    for shape, rows in sorted(rooms.items()):
        most = ways * max(1, BATCH_TOKENS // (shape[0] * ways))
        parts += [
            (shape, rows[first : first + most], min(most, _ways_up(len(rows), ways)))
            for first in range(0, len(rows), most)
        ]
    score = _build(model.config, model.numerics)
    for (length, room, ends), rows, count in watch(parts, len(parts), "scoring continuations, batches"):
        batch = _batch(requests, rows, count, length, room, ends)
        placed = place_rows(lambda wanted, batch=batch: {k: v[wanted] for k, v in batch.items()}, count, mesh)
        scores, likeliest = (np.asarray(everywhere(array)) for array in score(model.params, placed))
        for row, of_row, best in zip(rows, scores, likeliest, strict=False):
            for end, i in enumerate(row.requests):
                wanted = requests[i].continuation
                # The last token's score is in the column of its end; those before are the same in each.
                total = of_row[-len(wanted) :, end].sum(dtype=np.float64)
                answers[i] = Answer(float(total), best[-len(wanted) :].tolist() == list(wanted))
    return answers


def _rows(requests: Sequence[Request]) -> list[_Row]:
    shared: dict[tuple[int, ...], list[int]] = {}
    for i, request in enumerate(requests):
        shared.setdefault(request.context + request.continuation[:-1], []).append(i)
    return [
        _Row(tokens, tuple(members[first : first + _ENDS[-1]]))
        for tokens, members in shared.items()
        for first in range(0, len(members), _ENDS[-1])
    ]


def _ways_up(rows: int, ways: int) -> int:
    """So many rows, or more, that the mesh cuts: `ways` times a power of two."""
    return ways * (1 << (-(-rows // ways) - 1).bit_length())


def _batch(
    requests: Sequence[Request], rows: Sequence[_Row], count: int, length: int, room: int, ends: int
) -> dict[str, np.ndarray]:
    """The arrays of `target_scores`. A row's continuation stands at the end of its `room` places; what comes before them in
    the room is looked at and not used."""
    batch = sequence_batch([(*row.tokens, 0) for row in rows], count, length)
    del batch["targets"]
    batch["places"] = np.zeros((count, room), np.int32)
    targets = np.zeros((count, room, ends), np.int32)
    for n, row in enumerate(rows):
        tokens = np.array(row.tokens, np.int32)
        places = np.maximum(np.arange(len(tokens) - room, len(tokens)), 0)
        batch["places"][n] = places
        following = np.append(tokens[1:], 0)[places]
        targets[n] = following[:, None]
        targets[n, -1, : len(row.requests)] = [requests[i].continuation[-1] for i in row.requests]
    return batch | {"targets": targets.reshape(count, -1)}


@functools.lru_cache(maxsize=8)
def _build(config: DecoderConfig, numerics: Numerics) -> Callable:
    """One program for all checkpoints of a shape."""
    return jax.jit(lambda params, batch: target_scores(params, config, numerics, batch))
