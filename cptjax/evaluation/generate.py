"""Text that a model writes: prompts are read at once, then go on token by token, in one loop on the device."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cptjax.errors import ConfigurationError
from cptjax.evaluation.loss import everywhere
from cptjax.evaluation.sampling import nucleus
from cptjax.evaluation.score import BATCH_TOKENS, padded_length
from cptjax.models.cache import empty_cache, extend, fill
from cptjax.models.config import DecoderConfig
from cptjax.models.decoder import check_reach
from cptjax.models.model import Params
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows
from cptjax.sharding.rules import constrain
from cptjax.watching import Watch, unwatched

LEAST_TEMPERATURE = 1e-6  # below, logits divided by it are no float32 any more, and the likeliest token is drawn anyway
MOST_SEED = 1 << 31  # an int32 on the device
NEVER = -1  # the end of text where none is given: no token has this id


def generate(
    params: Params,
    config: DecoderConfig,
    numerics: Numerics,
    mesh: Mesh,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    eos: int | None = None,
    watch: Watch = unwatched,
    top_p: float = 1.0,
    first: int = 0,
) -> list[list[int]]:
    """Each prompt, followed by at most `max_new_tokens` tokens of which `eos` can only be the last.

    Token p of text i is drawn with a key made of (seed, i, p), from logits that are worked out of the text alone: it depends
    neither on the other prompts nor on the mesh, but where rounding decides between two tokens. Prompts of about the same
    length are read together; lengths and batches are powers of two, so that few shapes are compiled.

    Args:
        prompts: token ids, at least one each.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: draw from the fewest likeliest tokens that have so much of the probability (`sampling.nucleus`), after
            `temperature`; 1 leaves none out.
        first: the number i of the first prompt, where these are a part of more.

    Raises:
        ConfigurationError: an empty prompt, one that learned positions do not reach to the end of,
            or what `check_drawing` refuses.
    """
    check_drawing(temperature, top_p, seed)
    for number, prompt in enumerate(prompts, start=first):
        check_prompt(config, len(prompt), max_new_tokens, f"prompt {number}")
    if not max_new_tokens:
        return [list(prompt) for prompt in prompts]
    results: list[list[int]] = [[] for _ in prompts]
    buckets: dict[tuple[int, int], list[int]] = {}
    for i, prompt in enumerate(prompts):
        read = padded_length(len(prompt) - 1, config) if len(prompt) > 1 else 0
        buckets.setdefault((read, padded_length(len(prompt) - 1 + max_new_tokens, config)), []).append(i)
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    parts = []
    for (read, length), members in sorted(buckets.items()):
        most = max(1, BATCH_TOKENS // (length * ways))
        parts += [
            (read, length, most, members[begin : begin + most * ways]) for begin in range(0, len(members), most * ways)
        ]
    end = NEVER if eos is None else eos
    drawing = (seed, np.float32(temperature), np.float32(top_p))
    with jax.set_mesh(mesh):
        for read, length, most, part in watch(parts, len(parts), "writing, batches"):
            rows = ways * min(most, 1 << (-(-len(part) // ways) - 1).bit_length())
            batch = _batch([prompts[i] for i in part], [first + i for i in part], rows, read)
            placed = place_rows(lambda wanted, batch=batch: {k: v[wanted] for k, v in batch.items()}, rows, mesh)
            written = _write(
                params,
                placed,
                *drawing,
                end,
                max_new_tokens,
                config,
                numerics,
                length,
                room=1 << (max_new_tokens - 1).bit_length(),
                greedy=temperature == 0,
                cut=0 < top_p < 1,
            )
            for i, made in zip(part, np.asarray(everywhere(written)), strict=False):
                results[i] = list(prompts[i]) + _ended(made[:max_new_tokens].tolist(), end)
    return results


def check_drawing(temperature: float, top_p: float, seed: int = 0) -> None:
    """Raises ConfigurationError for a temperature that is neither 0 nor at least LEAST_TEMPERATURE, a `top_p` that is no share, and
    a seed that keys are not made of."""
    for name, value, holds, what in (
        (
            "TEMPERATURE",
            temperature,
            lambda x: x == 0 or LEAST_TEMPERATURE <= x < math.inf,
            f"0 (the likeliest token), or a number from {LEAST_TEMPERATURE:g} on",
        ),
        ("TOP_P", top_p, lambda x: 0 < x <= 1, "a share of the probability, above 0 and at most 1 (all of it)"),
    ):
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            raise ConfigurationError(f"{name} = {value!r}; it is {what}.")
    if not 0 <= seed < MOST_SEED:
        raise ConfigurationError(f"SEED = {seed}; texts are drawn by one from 0 to {MOST_SEED - 1:,}.")


def check_prompt(config: DecoderConfig, length: int, new: int, what: str) -> None:
    """Raises ConfigurationError for a prompt of no tokens, or one that learned positions do not reach to the end of."""
    if not length:
        raise ConfigurationError(f"{what} is empty: a text begins with a token, BOS where there is one.")
    check_reach(config, length - 1 + new, f"{what}, continued by {new} tokens, reads")


def _batch(prompts: Sequence[Sequence[int]], numbers: Sequence[int], rows: int, read: int) -> dict[str, np.ndarray]:
    """Each row's `number`, how many tokens are `given`, the `last` of them, and those before, `tokens` [rows, read]; whether
    it is `padding`, of the batch."""
    batch = {name: np.zeros(rows, np.int32) for name in ("number", "last")}
    batch |= {"given": np.ones(rows, np.int32), "padding": np.arange(rows) >= len(prompts)}
    if read:
        batch["tokens"] = np.zeros((rows, read), np.int32)
    for row, (prompt, number) in enumerate(zip(prompts, numbers, strict=True)):
        batch["number"][row], batch["given"][row], batch["last"][row] = number, len(prompt), prompt[-1]
        if read:
            batch["tokens"][row, : len(prompt) - 1] = prompt[:-1]
    return batch


@functools.partial(jax.jit, static_argnames=("config", "numerics", "length", "room", "greedy", "cut"))
def _write(
    params: Params,
    batch: dict[str, jax.Array],
    seed: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    eos: jax.Array,
    new: jax.Array,
    config: DecoderConfig,
    numerics: Numerics,
    length: int,
    room: int,
    greedy: bool,
    cut: bool,
) -> jax.Array:
    """What follows each row's given tokens, int32 [rows, room], in the first `new` columns; after a text's end it is 0.

    Args:
        length: places in the cache; room: at least `new`.
    """
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(batch["number"])

    def pick(logits: jax.Array, place: jax.Array) -> jax.Array:
        if greedy:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        logits = logits / temperature
        logits = nucleus(logits, top_p) if cut else logits
        return jax.vmap(jax.random.categorical)(jax.vmap(jax.random.fold_in)(keys, place), logits).astype(jnp.int32)

    def step(state):
        count, last, made, finished, cache = state
        place = batch["given"] - 1 + count
        logits, cache = extend(params, config, numerics, cache, last, place)
        drawn = jnp.where(finished, 0, pick(logits, place + 1))
        made = jax.lax.dynamic_update_index_in_dim(made, drawn, count, axis=1)
        return count + 1, drawn, made, finished | (drawn == eos), cache

    rows = batch["number"].shape[0]
    cache = empty_cache(config, numerics, rows, length)
    if "tokens" in batch:
        cache = fill(params, config, numerics, cache, batch["tokens"])
    made = constrain(jnp.zeros((rows, room), jnp.int32), "batch", None)
    state = (jnp.int32(0), batch["last"], made, batch["padding"], cache)
    return jax.lax.while_loop(lambda state: (state[0] < new) & ~jnp.all(state[3]), step, state)[2]


def _ended(made: list[int], eos: int) -> list[int]:
    """`made` up to the first `eos`, included."""
    return made[: made.index(eos) + 1] if eos in made else made
