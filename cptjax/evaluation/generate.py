"""Text that a model writes: prompts go on token by token, in one loop on the device."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cptjax.errors import ConfigurationError
from cptjax.evaluation.loss import everywhere
from cptjax.evaluation.score import BATCH_TOKENS, padded_length
from cptjax.models.cache import empty_cache, extend, fill
from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows
from cptjax.watching import Watch, unwatched

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
) -> list[list[int]]:
    """Each prompt, followed by at most `max_new_tokens` tokens of which `eos` can only be the last.

    Token p of sequence i is drawn with a key made of (seed, i, p): it depends neither on the batch nor on the mesh, but
    where rounding decides between two tokens. Prompts of about the same length are read together; lengths and batches are
    powers of two, so that few shapes are compiled.

    Args:
        prompts: token ids, at least one each.
        temperature: logits are divided by it; 0 takes the likeliest token.

    Raises:
        ConfigurationError: an empty prompt, or a negative temperature.
    """
    if temperature < 0:
        raise ConfigurationError(f"TEMPERATURE = {temperature}; it is 0 (the likeliest token) or above.")
    if empty := [i for i, prompt in enumerate(prompts) if not len(prompt)]:
        raise ConfigurationError(f"prompt {empty[0]} is empty: a text begins with a token, BOS where there is one.")
    results: list[list[int]] = [[] for _ in prompts]
    buckets: dict[tuple[int, int], list[int]] = {}
    for i, prompt in enumerate(prompts):
        shape = (_read_at_once(len(prompt)), padded_length(len(prompt) - 1 + max_new_tokens, config))
        buckets.setdefault(shape, []).append(i)
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    parts = []
    for (start, length), members in sorted(buckets.items()):
        most = max(1, BATCH_TOKENS // (length * ways))
        parts += [
            (start, length, most, members[first : first + most * ways]) for first in range(0, len(members), most * ways)
        ]
    end = NEVER if eos is None else eos
    with jax.set_mesh(mesh):
        for start, length, most, part in watch(parts, len(parts), "writing, batches"):
            rows = ways * min(most, 1 << (-(-len(part) // ways) - 1).bit_length())
            batch = _batch(prompts, part, rows, length, max_new_tokens)
            placed = place_rows(lambda wanted, batch=batch: {k: v[wanted] for k, v in batch.items()}, rows, mesh)
            written = _write(params, placed, seed, temperature, end, config, numerics, start, length, temperature == 0)
            for i, tokens in zip(part, np.asarray(everywhere(written)), strict=False):
                results[i] = _ended(tokens[: len(prompts[i]) + max_new_tokens].tolist(), len(prompts[i]), end)
    return results


def _read_at_once(length: int) -> int:
    """How much of a prompt is read before the loop: a power of two, and less than all (the last token's logits matter)."""
    return 0 if length < 2 else 1 << ((length - 1).bit_length() - 1)


def _batch(
    prompts: Sequence[Sequence[int]], part: Sequence[int], rows: int, length: int, new: int
) -> dict[str, np.ndarray]:
    """`tokens` [rows, length + 1]; each row's `number`, `given` tokens and tokens in the end (`limit`; 0 for padding)."""
    batch = {name: np.zeros(rows, np.int32) for name in ("number", "given", "limit")}
    batch["tokens"] = np.zeros((rows, length + 1), np.int32)
    for row, i in enumerate(part):
        n = len(prompts[i])
        batch["tokens"][row, :n] = prompts[i]
        batch["number"][row], batch["given"][row], batch["limit"][row] = i, n, n + new
    return batch


@functools.partial(jax.jit, static_argnames=("config", "numerics", "start", "length", "greedy"))
def _write(
    params: Params,
    batch: dict[str, jax.Array],
    seed: jax.Array,
    temperature: jax.Array,
    eos: jax.Array,
    config: DecoderConfig,
    numerics: Numerics,
    start: int,
    length: int,
    greedy: bool,
) -> jax.Array:
    """`batch["tokens"]`, filled up; what follows a sequence's end is 0."""
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(batch["number"])

    def pick(logits: jax.Array, place: jax.Array) -> jax.Array:
        if greedy:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        at_place = jax.vmap(lambda key: jax.random.fold_in(key, place))(keys)
        return jax.vmap(jax.random.categorical)(at_place, logits / temperature).astype(jnp.int32)

    def step(state):
        place, tokens, finished, cache = state
        current = jax.lax.dynamic_index_in_dim(tokens, place, axis=1, keepdims=False)
        logits, cache = extend(params, config, numerics, cache, current, place)
        place = place + 1
        drawn = pick(logits, place)
        read = jax.lax.dynamic_index_in_dim(tokens, place, axis=1, keepdims=False)
        given = place < batch["given"]
        following = jnp.where(given, read, jnp.where(finished, 0, drawn))
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, following, place, axis=1)
        finished |= ~given & ((drawn == eos) | (place + 1 >= batch["limit"]))
        return place, tokens, finished, cache

    tokens = batch["tokens"]
    cache = empty_cache(config, numerics, tokens.shape[0], length)
    if start:
        cache = fill(params, config, numerics, cache, tokens[:, :start])
    state = (jnp.int32(start), tokens, batch["limit"] <= batch["given"], cache)
    return jax.lax.while_loop(lambda state: ~jnp.all(state[2]), step, state)[1]


def _ended(tokens: list[int], given: int, eos: int) -> list[int]:
    """`tokens` up to the first `eos` after the given ones, included."""
    return tokens[: tokens.index(eos, given) + 1] if eos in tokens[given:] else tokens
