"""Log-probabilities of chosen tokens at chosen places of a row, and which token is the likeliest there."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, bind
from cptjax.models.numerics import Numerics

_BLOCK_LOGITS = 1 << 24  # at once, or those of one place of each row


def target_scores(
    params: Params, config: DecoderConfig, numerics: Numerics, batch: Mapping[str, jax.Array]
) -> tuple[Float[Array, "batch places targets"], Int[Array, "batch places"]]:
    """log p of each target after each place, float32, and the likeliest token there, int32.

    Logits are made of the chosen places alone, some of them at a time.

    Args:
        batch: int32 `inputs`, `positions`, `segment_ids` [batch, length]; `places` [batch, places], which positions; and
            `targets` [batch, places * targets], of which the log-probabilities are, place by place.
    """
    decoder = bind(params, config, numerics)
    hidden = decoder.hidden_states(batch["inputs"], batch["positions"], batch["segment_ids"])
    hidden = jnp.take_along_axis(hidden, batch["places"][..., None], axis=1)
    rows, places = batch["places"].shape
    targets = batch["targets"].reshape(rows, places, -1)
    most = max(1, _BLOCK_LOGITS // (rows * config.vocabulary_rows))
    together = math.gcd(places, 1 << (most.bit_length() - 1))

    def score(hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = decoder.logits(hidden)
        tokens = jnp.arange(logits.shape[-1])  # compared with, for a look-up does not cut along the vocabulary
        picked = [
            jnp.sum(jnp.where(tokens == targets[..., i, None], logits, 0.0), axis=-1) for i in range(targets.shape[-1])
        ]
        log_total = jax.nn.logsumexp(logits, axis=-1)
        return jnp.stack(picked, axis=-1) - log_total[..., None], jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def cut(array: jax.Array) -> jax.Array:
        """[batch, places, ...] -> [blocks, batch, together, ...]."""
        return jnp.moveaxis(array.reshape(rows, places // together, together, *array.shape[2:]), 1, 0)

    _, (scores, likeliest) = jax.lax.scan(lambda _, block: (None, score(*block)), None, (cut(hidden), cut(targets)))
    scores, likeliest = (
        jnp.moveaxis(array, 0, 1).reshape(rows, places, *array.shape[3:]) for array in (scores, likeliest)
    )
    return scores, likeliest
