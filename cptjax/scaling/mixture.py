"""Laws of how much of a run's text should be new: loss by share, and the share that a limit on forgetting leaves."""

import dataclasses

import jax.numpy as jnp

from cptjax.scaling.law import Law, Parameter, exponent, offset, scale
from cptjax.scaling.signed_law import SignedLaw


@dataclasses.dataclass(frozen=True)
class DomainMixture(Law):
    """L(N, D, r) = E + A / N**alpha + B r**eta / D**beta + C / (r + epsilon)**gamma.   (D-CPT, arXiv 2406.01375)

    r: the share of the run's tokens that are of the text whose loss this is; here that is the domain's, `target_share`.
    D: all tokens of continued pretraining. Fitted for one base model family, one domain and its loss. Valid for shares and
    tokens within those of the runs: as printed, B r**eta / D**beta rises with r, and C's term has to outweigh it.
    """

    name = "domain_mixture"
    columns = ("params", "tokens", "target_share")
    parameters = (
        offset(),
        scale("A"),
        exponent("alpha"),
        scale("B"),
        exponent("eta"),
        exponent("beta"),
        scale("C", (-6.0, 4.0)),
        scale("epsilon", (-6.0, -1.0), (-14.0, 1.0)),
        exponent("gamma", (0.0, 1.0)),
    )
    axes = {
        "params": ("A", "alpha"),
        "tokens": ("B", "beta"),
        "target_share": ("eta", "C", "epsilon", "gamma"),
    }
    may_be_zero = frozenset({"target_share"})

    def share(self, runs):
        """The share of the text whose loss this is."""
        return runs["target_share"]

    def log_terms(self, p, runs):
        share = jnp.maximum(self.share(runs), 0.0)
        powered = p["eta"] * jnp.log(jnp.maximum(share, 1e-9))
        return [
            p["log_E"],
            p["log_A"] - p["alpha"] * jnp.log(runs["params"]),
            p["log_B"] + powered - p["beta"] * jnp.log(runs["tokens"]),
            p["log_C"] - p["gamma"] * jnp.log(share + jnp.exp(p["log_epsilon"])),
        ]


@dataclasses.dataclass(frozen=True)
class GeneralMixture(DomainMixture):
    """`domain_mixture` for the loss on general text: r is 1 - `target_share`.   (D-CPT, arXiv 2406.01375)"""

    name = "general_mixture"

    def share(self, runs):
        return 1.0 - runs["target_share"]


@dataclasses.dataclass(frozen=True)
class CriticalMixture(SignedLaw):
    """R(T) = a T**s + b: the largest share of domain tokens that keeps the general loss within a limit.   (CMR, arXiv 2407.17467)

    T: `tokens` of continued pretraining, in the paper's units of 0.2e9. Predicts the column `critical_share`, which
    `scaling.shares.share_at_limit` finds from a sweep of shares at one T. The paper's coefficients are of one size each: no
    law across sizes. Valid for T within those of the sweeps, and where R is between 0 and 1.
    """

    name = "critical_mixture"
    target = "critical_share"
    columns = ("tokens",)
    parameters = (
        Parameter("a", False, (-50.0, 50.0), (-3.0, 3.0)),
        Parameter("s", False, (-2.0, 2.0), (-0.6, 0.6)),
        Parameter("b", False, (-50.0, 50.0), (-2.0, 2.0)),
    )
    axes = {"tokens": ("a", "s", "b")}

    def value(self, p, runs):
        return p["a"] * (runs["tokens"] / 0.2e9) ** p["s"] + p["b"]
