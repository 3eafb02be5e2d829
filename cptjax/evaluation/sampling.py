"""Which tokens may be drawn: the nucleus of a distribution."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def nucleus(logits: Float[Array, "*texts vocabulary"], top_p: float | jax.Array) -> Float[Array, "*texts vocabulary"]:
    """`logits` with -inf outside the fewest likeliest tokens that have at least `top_p` of the probability together.

    Holtzman et al., "The Curious Case of Neural Text Degeneration" (arXiv 1904.09751, section 3.1). The likeliest token always
    stays; of equally likely ones those with the lower ids stay. Sums are float32.

    Args:
        top_p: above 0, below 1.
    """
    order = jnp.argsort(-logits, axis=-1, stable=True)
    probabilities = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1)[..., :-1]  # of each token but the first: what the likelier ones have
    kept = jnp.concatenate([jnp.ones_like(before[..., :1], bool), before < top_p], axis=-1)
    rank = jnp.argsort(order, axis=-1)
    return jnp.where(jnp.take_along_axis(kept, rank, axis=-1), logits, -jnp.inf)
