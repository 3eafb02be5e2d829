"""A block of logits, some tokens against some of the vocabulary: how it is made, and what its gradient is.

Both passes of `linear_cross_entropy` make their blocks here, so that they are the same to the last bit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Columns(NamedTuple):
    """Which of a block's columns count: those from `fresh` on (the ones before were in another block), below `real`.

    Both are counted from the block's first column and may lie outside of it; None where nothing is left out.
    """

    fresh: jax.Array | None
    real: jax.Array | None

    def mask(self, shape: tuple[int, int]) -> jax.Array | None:
        """bool `shape`, fused into its use; None where every column counts."""
        column = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
        conditions = [column >= self.fresh] if self.fresh is not None else []
        conditions += [column < self.real] if self.real is not None else []
        return jnp.logical_and(*conditions) if len(conditions) == 2 else next(iter(conditions), None)


def product(x: jax.Array, y: jax.Array, of_x: int | tuple[int, ...], of_y: int | tuple[int, ...]) -> jax.Array:
    """Sums over dimensions `of_x` of x and `of_y` of y, in float32; float32 products name HIGHEST precision."""
    summed = tuple((axes,) if isinstance(axes, int) else axes for axes in (of_x, of_y))
    exact = x.dtype == jnp.float32
    precision = jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(x, y, (summed, ((), ())), precision=precision, preferred_element_type=jnp.float32)


def product_over_tokens(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """[tokens, width], [tokens, columns] -> float32 [width, columns].

    As if over two dimensions of tokens: XLA then turns x around first on a CPU, and has the product done by its fast
    library, which it does not with a product over two first dimensions.
    """
    return product(x[None], gradient[None], (0, 1), (0, 1))


def block_logits(hidden: jax.Array, kernel: jax.Array, vocabulary_axis: int, soft_cap: float | None) -> jax.Array:
    """float32 [tokens, columns], capped.

    Args:
        hidden: [tokens, width].
        kernel: the columns' part of the head, in hidden's dtype; `vocabulary_axis` is its dimension of columns.
    """
    logits = product(hidden, kernel, 1, 1 - vocabulary_axis)
    return logits if soft_cap is None else soft_cap * jnp.tanh(logits / soft_cap)


def counted(values: jax.Array, mask: jax.Array | None, otherwise: float) -> jax.Array:
    """`values` in the columns that count."""
    return values if mask is None else jnp.where(mask, values, otherwise)


def picked(logits: jax.Array, targets: jax.Array, mask: jax.Array | None) -> jax.Array:
    """bool [tokens, columns]: each token's target, where it is one of the columns that count.

    By comparing with an iota and not by `take_along_axis`, whose gradient is a scatter: on a CPU four times its forward.
    """
    found = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == targets[:, None]
    return found if mask is None else found & mask


def gradient_of_product(
    logits: jax.Array,
    targets: jax.Array,
    log_total: jax.Array,
    of_nats: jax.Array,
    of_log_total: jax.Array,
    mask: jax.Array | None,
    soft_cap: float | None,
) -> jax.Array:
    """float32 [tokens, columns]: the gradient with respect to hidden @ kernel, before the cap.

    nats = log_total - logits[target], and log_total's own gradient is the probabilities.

    Args:
        log_total: of the whole vocabulary, not of the block; [tokens], as are the cotangents `of_nats` and `of_log_total`.
    """
    probabilities = jnp.exp(logits - log_total[:, None])
    gradient = probabilities * (of_nats + of_log_total)[:, None]
    gradient = gradient - jnp.where(picked(logits, targets, None), of_nats[:, None], 0.0)
    if soft_cap is not None:
        gradient = gradient * (1.0 - jnp.square(logits / soft_cap))
    return counted(gradient, mask, 0.0)
