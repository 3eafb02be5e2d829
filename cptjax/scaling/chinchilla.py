"""The law of training from scratch, and what it says to buy."""

import dataclasses

import jax.numpy as jnp

from cptjax.scaling.law import Law, exponent, offset, scale


@dataclasses.dataclass(frozen=True)
class Chinchilla(Law):
    """L(N, D) = E + A / N**alpha + B / D**beta.   (arXiv 2203.15556, approach 3; refitted in 2404.10102)

    N: parameters. D: tokens, each seen once. L: nats per token at the end of an annealed run.
    Valid for one epoch, and for the definition of N that it was fitted with.
    """

    name = "chinchilla"
    columns = ("params", "tokens")
    parameters = (offset(), scale("A"), scale("B"), exponent("alpha"), exponent("beta"))
    axes = {"params": ("A", "alpha"), "tokens": ("B", "beta")}

    def log_terms(self, p, runs):
        return [
            p["log_E"],
            p["log_A"] - p["alpha"] * jnp.log(runs["params"]),
            p["log_B"] - p["beta"] * jnp.log(runs["tokens"]),
        ]
