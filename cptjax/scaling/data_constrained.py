"""The law of repeated text: what epochs are worth."""

import dataclasses

import jax.numpy as jnp

from cptjax.scaling.law import Law, exponent, offset, scale


def worth(amount, unique, log_decay):
    """What `amount` is worth of which only `unique` is new: U + U R* (1 - exp(-R / R*)), R = amount / U - 1 (2305.16264, eq. 5).

    Args:
        amount, unique: of one kind, tokens or parameters; `unique` counts at most `amount`.
        log_decay: log R*; R* + 1 times `unique` is the most that repeating can be worth.
    """
    unique = jnp.minimum(unique, amount)
    repeats, decay = amount / unique - 1, jnp.exp(log_decay)
    return unique - unique * decay * jnp.expm1(-repeats / decay)


@dataclasses.dataclass(frozen=True)
class DataConstrained(Law):
    """L(N, D, U) = E + A / N'**alpha + B / D'**beta.   (arXiv 2305.16264, eqs. 5, 7-9, A.2)

    D' = U + U R_D (1 - exp(-(D / U - 1) / R_D)): what D tokens are worth of which U are unique.
    N' likewise of N parameters, of which U_N are of use: the size that U tokens are compute-optimal for,
    (alpha A U**beta / (beta B))**(1/alpha), or N where that is smaller.
    D: tokens read; U: `unique_tokens`. The paper ties alpha to beta; here both are fitted. Valid for one text, repeated whole,
    where D is at least U.
    """

    name = "data_constrained"
    columns = ("params", "tokens", "unique_tokens")
    parameters = (
        offset(),
        scale("A"),
        scale("B"),
        exponent("alpha", (0.2, 1.0), (0.02, 5.0)),
        exponent("beta", (0.2, 1.0), (0.02, 5.0)),
        scale("R_D", (0.0, 4.0), (-4.0, 8.0)),
        scale("R_N", (0.0, 4.0), (-4.0, 8.0)),
    )
    axes = {"params": ("A", "alpha", "R_N"), "tokens": ("B", "beta"), "unique_tokens": ("R_D",)}

    def log_terms(self, p, runs):
        size, unique = runs["params"], runs["unique_tokens"]
        log_ratio = p["log_A"] + jnp.log(p["alpha"]) - p["log_B"] - jnp.log(p["beta"])
        useful = jnp.exp(jnp.minimum((log_ratio + p["beta"] * jnp.log(unique)) / p["alpha"], jnp.log(size)))
        return [
            p["log_E"],
            p["log_A"] - p["alpha"] * jnp.log(worth(size, useful, p["log_R_N"])),
            p["log_B"] - p["beta"] * jnp.log(worth(runs["tokens"], unique, p["log_R_D"])),
        ]
