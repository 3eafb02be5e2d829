"""The law of continued pretraining in another language."""

import dataclasses

import jax.numpy as jnp

from cptjax.scaling.law import Law, exponent, offset, scale


@dataclasses.dataclass(frozen=True)
class CrossLingual(Law):
    """L(N, D) = E + A / N**alpha + B / (D**beta * N**gamma).   (arXiv 2407.02118, eq. 4)

    N: parameters, all of them (that paper's tables count embeddings). D: target-language tokens of continued pretraining.
    L: nats per token on target-language text. E, A, alpha are those of a fit from scratch on the same text (`given`); gamma
    is near 0 where nothing is transferred. Valid at the paper's prior tokens per parameter (20), and where beta > gamma:
    else no compute-optimal size exists. The paper's printed coefficients are rounded too far to predict with (their own
    continued runs come out worse than from scratch): they serve to check the algebra.
    """

    name = "cross_lingual"
    columns = ("params", "tokens")
    parameters = (
        offset(),
        scale("A"),
        scale("B"),
        exponent("alpha"),
        exponent("beta"),
        exponent("gamma", starts=(-0.2, 0.5), bounds=(-3.0, 3.0)),
    )
    axes = {"params": ("A", "alpha", "gamma"), "tokens": ("B", "beta")}
    given = ("E", "A", "alpha")

    def log_terms(self, p, runs):
        log_n = jnp.log(runs["params"])
        transferred = p["log_B"] - p["beta"] * jnp.log(runs["tokens"]) - p["gamma"] * log_n
        return [p["log_E"], p["log_A"] - p["alpha"] * log_n, transferred]
