"""Candidates for L(N, D, D'): a model of N parameters after D general and D' domain tokens.

The law of "Optimal Splitting of Language Models from Mixtures to Specialized Domains" (arXiv 2603.19149) is not public: its
abstract alone is known. These forms compete instead; whoever needs one chooses by the error on held-out largest runs.
`tokens` is D', `prior_tokens` is D. A law for a domain should be finite at D' = 0, be the domain's own law at D = 0, fall
in N, D and D', and forget D as D' grows without end: `effective_tokens` alone does all four.
"""

import dataclasses

import jax.numpy as jnp

from cptjax.scaling.law import Law, exponent, log_tokens, offset, scale

_BASE = (offset(), scale("A"), exponent("alpha"))


def _size_terms(p, runs):
    """E + A / N**alpha, which all of them but one share."""
    return [p["log_E"], p["log_A"] - p["alpha"] * jnp.log(runs["params"])]


@dataclasses.dataclass(frozen=True)
class EffectiveTokens(Law):
    """L(N, D, D') = E + A / N**alpha + B / (D' + kappa * D**rho)**beta.   (proposed here; in no paper)

    D general tokens are worth kappa * D**rho of the domain's. Valid where D or D' is above 0.
    """

    name = "effective_tokens"
    columns = ("params", "prior_tokens", "tokens")
    parameters = (*_BASE, scale("B"), exponent("beta"), scale("kappa", starts=(-6.0, 6.0)), exponent("rho", (0.2, 1.0)))
    axes = {"params": ("A", "alpha"), "tokens": ("B", "beta"), "prior_tokens": ("kappa", "rho")}
    may_be_zero = frozenset({"prior_tokens", "tokens"})

    def log_terms(self, p, runs):
        general = p["log_kappa"] + p["rho"] * log_tokens(runs["prior_tokens"])
        effective = jnp.logaddexp(log_tokens(runs["tokens"]), general)
        return [*_size_terms(p, runs), p["log_B"] - p["beta"] * effective]


@dataclasses.dataclass(frozen=True)
class EffectiveTokensBySize(Law):
    """L(N, D, D') = E + A / N**alpha + B / (D' + kappa * N**delta * D**rho)**beta.   (proposed here; in no paper)

    `effective_tokens` with a worth of general tokens that depends on the size, as transfer does in Hernandez et al.
    (arXiv 2102.01293). Valid where D or D' is above 0.
    """

    name = "effective_tokens_N"
    columns = ("params", "prior_tokens", "tokens")
    parameters = (
        *EffectiveTokens.parameters[:5],
        scale("kappa", starts=(-12.0, 6.0)),
        exponent("rho", (0.2, 1.0)),
        exponent("delta", (-0.2, 0.6), (-3.0, 3.0)),
    )
    axes = {"params": ("A", "alpha", "delta"), "tokens": ("B", "beta"), "prior_tokens": ("kappa", "rho")}
    may_be_zero = frozenset({"prior_tokens", "tokens"})

    def log_terms(self, p, runs):
        worth = p["log_kappa"] + p["delta"] * jnp.log(runs["params"])
        general = worth + p["rho"] * log_tokens(runs["prior_tokens"])
        effective = jnp.logaddexp(log_tokens(runs["tokens"]), general)
        return [*_size_terms(p, runs), p["log_B"] - p["beta"] * effective]


@dataclasses.dataclass(frozen=True)
class TransferGap(Law):
    """L(N, D, D') = E + A / N**alpha + (B / D**beta + G) / (D' + D0)**gamma.

    The form of Barnett 2024 and Mikami et al. 2021 (arXiv 2108.11018), from memory, with D0 added so that D' may be 0:
    the gap G is closed by the domain's tokens alone, the rest by both. Valid for D above 0.
    """

    name = "transfer_gap"
    columns = ("params", "prior_tokens", "tokens")
    parameters = (*_BASE, scale("B"), exponent("beta"), scale("G"), exponent("gamma"), scale("D0", starts=(8.0, 22.0)))
    axes = {"params": ("A", "alpha"), "prior_tokens": ("B", "beta"), "tokens": ("G", "gamma", "D0")}
    may_be_zero = frozenset({"tokens"})

    def log_terms(self, p, runs):
        shifted = p["gamma"] * jnp.logaddexp(log_tokens(runs["tokens"]), p["log_D0"])
        general = p["log_B"] - p["beta"] * jnp.log(runs["prior_tokens"])
        return [*_size_terms(p, runs), general - shifted, p["log_G"] - shifted]


@dataclasses.dataclass(frozen=True)
class Bootstrapped(Law):
    """L(N, D, D') = E + A / N**alpha + B * D**-beta1 * D'**(-beta2 + beta3 * log D).   (after arXiv 2510.06548)

    The second stage's exponent falls with the logarithm of the first stage's tokens; the terms in N are added here. Valid
    for D and D' above 0 and beta3 * log D < beta2: beyond, more domain tokens would make it worse.
    """

    name = "bootstrapped"
    columns = ("params", "prior_tokens", "tokens")
    parameters = (
        *_BASE,
        scale("B", starts=(0.0, 15.0)),
        exponent("beta1", (0.0, 0.5)),
        exponent("beta2", (0.0, 1.0)),
        exponent("beta3", (0.0, 0.03), (-0.5, 0.5)),
    )
    axes = {"params": ("A", "alpha"), "prior_tokens": ("beta1", "beta3"), "tokens": ("B", "beta2")}

    def log_terms(self, p, runs):
        log_d, log_new = jnp.log(runs["prior_tokens"]), jnp.log(runs["tokens"])
        new = (p["beta3"] * log_d - p["beta2"]) * log_new
        return [*_size_terms(p, runs), p["log_B"] - p["beta1"] * log_d + new]


@dataclasses.dataclass(frozen=True)
class JointTerm(Law):
    """L(N, D') = E + A / N**alpha + B / (D'**beta * N**gamma), all of it fitted.   (the form of arXiv 2407.02118, eq. 4)

    `cross_lingual` freezes E, A and alpha at a fit from scratch; this one needs none. Valid at one number of prior tokens
    per parameter, for D' above 0.
    """

    name = "joint_term"
    columns = ("params", "tokens")
    parameters = (*_BASE, scale("B"), exponent("beta"), exponent("gamma", (-0.2, 0.5), (-3.0, 3.0)))
    axes = {"params": ("A", "alpha", "gamma"), "tokens": ("B", "beta")}

    def log_terms(self, p, runs):
        log_n = jnp.log(runs["params"])
        return [*_size_terms(p, runs), p["log_B"] - p["beta"] * jnp.log(runs["tokens"]) - p["gamma"] * log_n]


@dataclasses.dataclass(frozen=True)
class Additive(Law):
    """L(N, D, D') = E + A / N**alpha + B / D**beta + C / (D' + D0)**gamma.   (proposed here, as a baseline)

    The stages do not know of each other. Valid for D above 0.
    """

    name = "additive"
    columns = ("params", "prior_tokens", "tokens")
    parameters = (*_BASE, scale("B"), exponent("beta"), scale("C"), exponent("gamma"), scale("D0", starts=(8.0, 22.0)))
    axes = {"params": ("A", "alpha"), "prior_tokens": ("B", "beta"), "tokens": ("C", "gamma", "D0")}
    may_be_zero = frozenset({"tokens"})

    def log_terms(self, p, runs):
        shifted = jnp.logaddexp(log_tokens(runs["tokens"]), p["log_D0"])
        general = p["log_B"] - p["beta"] * jnp.log(runs["prior_tokens"])
        return [*_size_terms(p, runs), general, p["log_C"] - p["gamma"] * shifted]


@dataclasses.dataclass(frozen=True)
class FineTuning(Law):
    """L(N, D') = E + A / (N**alpha * D'**beta).   (arXiv 2502.06042, eq. 6)

    For small D' and one base per size. Valid for D' above 0.
    """

    name = "bethune_ft"
    columns = ("params", "tokens")
    parameters = (*_BASE, exponent("beta"))
    axes = {"params": ("A", "alpha"), "tokens": ("beta",)}

    def log_terms(self, p, runs):
        size = p["log_A"] - p["alpha"] * jnp.log(runs["params"])
        return [p["log_E"], size - p["beta"] * jnp.log(runs["tokens"])]
