"""The head's product and its cross-entropy in one operation, in plain JAX: no array of tokens x vocabulary is needed.

Forward, an online log-sum-exp over blocks of the vocabulary; backward, each block's logits are made again from the saved
log-sum-exp, its gradient is added to that of the hidden states, and its part of the kernel's gradient is written. Where all
logits are one block (head_cuts.py) they are kept instead. Under a mesh each device works on its own tokens and its part
of the vocabulary.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from cptjax.kernels.head_cuts import ALONE, MeshCut
from cptjax.kernels.head_passes import Settings, backward, forward


class TokenLosses(NamedTuple):
    """Of each token, times its weight: nats, and the square of the log of its softmax's denominator.

    The latter times a small coefficient (1e-4) is the z-loss, which keeps the denominator near 1 (arXiv 2204.02311, section 5).
    """

    nats: jax.Array
    squared_log_total: jax.Array


def linear_cross_entropy(
    hidden: Float[Array, "*tokens width"],
    kernel: Float[Array, "width rows"] | Float[Array, "rows width"],
    targets: Int[Array, "*tokens"],
    *,
    weights: Float[Array, "*tokens"] | None = None,
    vocabulary_axis: int = 1,
    vocabulary: int | None = None,
    soft_cap: float | None = None,
    limits: tuple[int, int] | None = None,
    cut: MeshCut | None = None,
) -> TokenLosses:
    """-log softmax(hidden @ kernel)[target] in nats, and what a z-loss is made of; float32 [*tokens] each.

    The products are in hidden's dtype and add up in float32; all else is float32. A target that is no row of the vocabulary
    (negative, or of the padding) picks nothing: its nats are the log-sum-exp alone.

    Args:
        weights: of each token's losses; 1 unless given. Where one is 0 the losses are 0, whatever the token is.
        vocabulary_axis: the kernel's dimension of rows: 1, or 0 for an embedding table (a tied head).
        vocabulary: how many of the kernel's rows are real, the first ones; the rest is padding, out of the softmax.
        soft_cap: logits s become soft_cap * tanh(s / soft_cap).
        limits: the most tokens and columns of a block of logits; chosen by size unless given.
        cut: which part of the tokens and of the kernel each device of a mesh has; None where there is one device.

    Raises:
        ValueError: shapes that do not fit, or limits below 1.
    """
    width, rows = kernel.shape[1 - vocabulary_axis], kernel.shape[vocabulary_axis]
    if hidden.shape != (*targets.shape, width) or (weights is not None and weights.shape != targets.shape):
        raise ValueError(
            f"linear_cross_entropy: hidden {hidden.shape}, kernel {kernel.shape} with its rows in dimension "
            f"{vocabulary_axis}, targets {targets.shape} and weights "
            f"{None if weights is None else weights.shape} do not fit each other."
        )
    vocabulary = rows if vocabulary is None else vocabulary
    if not 1 <= vocabulary <= rows or (limits is not None and min(limits) < 1):
        raise ValueError(f"linear_cross_entropy: vocabulary = {vocabulary} of {rows} rows, limits = {limits}.")
    settings = Settings(vocabulary_axis, vocabulary, soft_cap, limits, cut or ALONE[vocabulary_axis])
    nats, log_total = _nats_and_log_total(hidden, kernel, jnp.where(targets < vocabulary, targets, -1), settings)
    if weights is None:
        return TokenLosses(nats, jnp.square(log_total))
    weights = weights.astype(jnp.float32)
    return TokenLosses(*(jnp.where(weights == 0, 0.0, weights * x) for x in (nats, jnp.square(log_total))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _nats_and_log_total(
    hidden: jax.Array, kernel: jax.Array, targets: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
    """Neither times a weight; float32 [*tokens] each. targets: int32, below the vocabulary."""
    nats, log_total, _ = _run_forward(hidden, kernel, targets, settings, keep=False)
    return nats, log_total


def _run_forward(
    hidden: jax.Array, kernel: jax.Array, targets: jax.Array, settings: Settings, keep: bool
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    tokens, of_kernel = settings.cut.tokens, settings.cut.kernel
    of_logits = PartitionSpec(*tokens, *of_kernel[settings.vocabulary_axis : settings.vocabulary_axis + 1])
    run = _on_each_device(
        functools.partial(forward, settings, keep), settings, (tokens, of_kernel, tokens), (tokens, tokens, of_logits)
    )
    return run(hidden, kernel, targets)


def _forward_rule(hidden: jax.Array, kernel: jax.Array, targets: jax.Array, settings: Settings):
    nats, log_total, logits = _run_forward(hidden, kernel, targets, settings, keep=True)
    return (nats, log_total), (hidden, kernel, targets, log_total, logits)


def _backward_rule(settings: Settings, saved, cotangents: tuple[jax.Array, jax.Array]):
    hidden, kernel, targets, log_total, logits = saved
    tokens, of_kernel = settings.cut.tokens, settings.cut.kernel
    of_logits = PartitionSpec(*tokens, *of_kernel[settings.vocabulary_axis : settings.vocabulary_axis + 1])
    run = _on_each_device(
        functools.partial(backward, settings),
        settings,
        (tokens, of_kernel, tokens, tokens, of_logits, tokens, tokens),
        (tokens, of_kernel),
    )
    of_hidden, of_kernel = run(hidden, kernel, targets, log_total, logits, *cotangents)
    return of_hidden, of_kernel, None


_nats_and_log_total.defvjp(_forward_rule, _backward_rule)


def _on_each_device(function: Callable, settings: Settings, given: tuple, results: tuple) -> Callable:
    """`function` on each device's part, by the partitions of what it is given and of its results."""
    if settings.cut.mesh is None:
        return function
    # Nothing is differentiated through it, and every sum over devices is written out: JAX need not follow what varies.
    return jax.shard_map(function, mesh=settings.cut.mesh, in_specs=given, out_specs=results, check_vma=False)
