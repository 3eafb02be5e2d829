"""What both TPU kernels do with a block of scores: form it, in base 2, hide what is not to be seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

LOG2E = 1.4426950408889634
# The running maximum begins at LOWEST, and what is hidden stands so far below it that its share is exactly 0, in rows too
# that have not seen anything yet.
LOWEST, HIDDEN = -1e30, -2e38


class Scaling(NamedTuple):
    """How scores are formed from products of queries and keys."""

    scale: float
    soft_cap: float | None

    @property
    def of_queries(self) -> float:
        """What queries are multiplied by beforehand, so that products are scores in base 2, or what tanh is taken of."""
        return self.scale * LOG2E if self.soft_cap is None else self.scale / self.soft_cap

    def scaled(self, query: jax.Array) -> jax.Array:
        """Queries as both kernels take them. Done outside: XLA writes them as it turns the heads to the front."""
        return (query.astype(jnp.float32) * self.of_queries).astype(query.dtype)

    def capped(self, products: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Scores in base 2, and their derivative by what the cap was applied to (None without one)."""
        if self.soft_cap is None:
            return products, None
        bent = jnp.tanh(products)
        return bent * (self.soft_cap * LOG2E), 1.0 - bent * bent


def product(x: jax.Array, y: jax.Array, over: tuple[int, int]) -> jax.Array:
    """Sum over dimension over[0] of x and over[1] of y, in float32; float32 inputs are multiplied as such."""
    exact = x.dtype == jnp.float32
    return jax.lax.dot_general(
        x,
        y,
        (((over[0],), (over[1],)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def across(column: jax.Array, width: int) -> jax.Array:
    """[rows, 128], the same in all lanes -> [rows, width]."""
    lanes = column.shape[1]
    copies = -(-width // lanes)
    return column[:, :width] if copies == 1 else jnp.concatenate([column] * copies, axis=1)[:, :width]
