"""The plain-JAX reference, which is the CPU's own attention, against the einsum that everybody writes first."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cptjax.benchmarks.attention.documents import equal_documents
from cptjax.kernels.attention import attention

_DOCUMENTS = 8  # of a row


def reference_ratio(length: int = 4096, heads: int = 8, head_dim: int = 64, turns: int = 5) -> dict[str, float]:
    """Seconds of one packed float32 row by each, forward alone and with the gradients; they take turns, medians.

    Returns:
        "seconds_..." of both and "ratio_forward", "ratio_gradients": the naive one's seconds over the reference's.
    """
    segment_ids = jnp.asarray(equal_documents(length, _DOCUMENTS))
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=(1, length, heads, head_dim)), jnp.float32) for _ in range(3)]

    def reference(query, key, value):
        return attention(query, key, value, segment_ids=segment_ids, implementation="reference")

    def naive(query, key, value):
        return naive_attention(query, key, value, segment_ids)

    found: dict[str, float] = {}
    for name, made in (("forward", lambda f: f), ("gradients", _gradients)):
        programs = {"naive": jax.jit(made(naive)), "reference": jax.jit(made(reference))}
        seconds = _turns(programs, arrays, turns)
        found.update({f"seconds_{name}_{which}": value for which, value in seconds.items()})
        found[f"ratio_{name}"] = seconds["naive"] / seconds["reference"]
    return found


def naive_attention(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """All scores of [batch, length, heads, head_dim] at once, those across documents and of the future hidden."""
    places = jnp.arange(query.shape[1])
    seen = (segment_ids[:, :, None] == segment_ids[:, None]) & (places[:, None] >= places)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30), axis=-1), value)


def _gradients(attend: Callable) -> Callable:
    return jax.grad(lambda *arrays: jnp.sum(jnp.square(attend(*arrays))), argnums=(0, 1, 2))


def _turns(programs: dict[str, Callable], arrays: list[jax.Array], turns: int) -> dict[str, float]:
    """Median seconds of each, after a call that compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(turns + 1):
        for name, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program(*arrays))
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(each) for name, each in seconds.items()}
