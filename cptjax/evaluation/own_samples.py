"""Text that the base writes itself, and what other checkpoints make of it: forgetting, measured without a corpus.

The base draws sequences at temperature 1. Each checkpoint is then asked for its loss on them and for its divergence from the
base, KL(base || checkpoint), computed at every position from both full distributions (PROTOCOL.md 8).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from cptjax.evaluation.documents import rows_at_once
from cptjax.evaluation.generate import generate
from cptjax.evaluation.loss import everywhere
from cptjax.evaluation.score import padded_length, sequence_batch
from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, logits
from cptjax.models.numerics import Numerics
from cptjax.sharding.batches import place_rows
from cptjax.watching import Watch, unwatched


@dataclasses.dataclass(frozen=True)
class Model:
    """Weights and how to compute with them."""

    params: Params
    config: DecoderConfig
    numerics: Numerics


@dataclasses.dataclass(frozen=True)
class SampleLosses:
    """By sample, float64: nats over its tokens but the first, KL(base || checkpoint) summed over them, their number."""

    nats: np.ndarray
    kl: np.ndarray
    tokens: np.ndarray


def write_samples(
    base: Model,
    mesh: Mesh,
    start: int,
    eos: int | None,
    count: int,
    tokens: int,
    seed: int,
    watch: Watch = unwatched,
) -> list[list[int]]:
    """`count` texts of at most `tokens` tokens that the base draws at temperature 1 after `start`; EOS ends one."""
    prompts = [[start]] * count
    return generate(base.params, base.config, base.numerics, mesh, prompts, tokens, 1.0, seed, eos, watch)


def sample_losses(
    base: Model, checkpoint: Model, mesh: Mesh, samples: Sequence[Sequence[int]], watch: Watch = unwatched
) -> SampleLosses:
    """What `checkpoint` makes of the base's samples. Its vocabulary is the base's.

    Memory is bounded by `documents.BATCH_LOGITS` logits of each, and by the samples scored.
    """
    longest = padded_length(max(map(len, samples)) - 1, base.config)
    rows = rows_at_once(longest, base.config.vocabulary, mesh)
    found = []
    firsts = range(0, len(samples), rows)
    for first in watch(firsts, len(firsts), "scoring the base's own samples, batches"):
        part = samples[first : first + rows]
        batch = sequence_batch(part, rows, longest)
        placed = place_rows(lambda wanted, batch=batch: {k: v[wanted] for k, v in batch.items()}, rows, mesh)
        theirs = _build_logits(base.config, base.numerics)(base.params, placed)
        own = checkpoint.params is base.params  # then the divergence is 0, to the last bit
        ours = theirs if own else _build_logits(checkpoint.config, checkpoint.numerics)(checkpoint.params, placed)
        scored = np.asarray(everywhere(_compared(theirs, ours, placed)), np.float64)
        found.append(scored[: len(part)].sum(axis=1))
    nats, kl = np.concatenate(found).T
    return SampleLosses(nats, kl, np.array([len(sample) - 1 for sample in samples], np.float64))


def divergence(
    base: Float[Array, "*tokens vocabulary"], other: Float[Array, "*tokens vocabulary"]
) -> Float[Array, "*tokens"]:
    """KL(base || other) in nats between the distributions of two sets of logits, float32, at least 0."""
    theirs, ours = jax.nn.log_softmax(base), jax.nn.log_softmax(other)
    kl = jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)
    return jnp.maximum(kl, 0.0)  # of two that are nearly the same, rounding alone can make it less


@functools.lru_cache(maxsize=8)
def _build_logits(config: DecoderConfig, numerics: Numerics) -> Callable[[Params, dict], jax.Array]:
    """One program for all checkpoints of a shape, the base among them: logits without the rows of padding."""
    return jax.jit(
        lambda params, batch: logits(
            params, config, numerics, batch["inputs"], batch["positions"], batch["segment_ids"]
        )[..., : config.vocabulary]
    )


@jax.jit
def _compared(base: jax.Array, other: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """[rows, length, 2]: nats of the target under `other`, and the divergence from `base`; 0 where there is padding."""
    picked = jnp.arange(other.shape[-1]) == batch["targets"][..., None]  # a look-up does not cut along the vocabulary
    nats = -jnp.sum(jnp.where(picked, jax.nn.log_softmax(other), 0.0), axis=-1)
    measured = jnp.stack([nats, divergence(base, other)], axis=-1)
    return jnp.where(batch["segment_ids"][..., None] > 0, measured, 0.0)
