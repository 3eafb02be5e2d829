"""Laws of a loss along its learning rates: what a schedule's area and its fall are worth."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cptjax.scaling.law import Parameter, exponent, offset, scale
from cptjax.scaling.signed_law import SignedLaw

DECAY = 0.999  # of what a fall of the learning rate is worth, by step (arXiv 2408.11029)


def rate_sums(
    rates: Float[np.ndarray, " steps"], decay: float = DECAY
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """The columns `rate_sum` (S1) and `rate_fall` (S2) after each step of a run, from its learning rates.

    S1 = sum of the rates up to it; S2 = sum of m_i up to it with m_i = decay * m_(i-1) + (rate_(i-1) - rate_i), which is the
    double sum of arXiv 2408.11029 in linear time. The rate before the first is the first.
    """
    rates = np.asarray(rates, np.float64)
    falls = np.concatenate([[0.0], -np.diff(rates)])
    momenta = np.empty_like(rates)
    momentum = 0.0
    for step, fall in enumerate(falls):
        momentum = decay * momentum + fall
        momenta[step] = momentum
    return np.cumsum(rates), np.cumsum(momenta)


@dataclasses.dataclass(frozen=True)
class Annealing(SignedLaw):
    """L = L0 + A / S1**alpha - C S2.   (Tissue et al., arXiv 2408.11029)

    S1: `rate_sum`, the sum of the learning rates so far; S2: `rate_fall`, their momentum-weighted fall (`rate_sums` makes
    both). One model, one text and batch; any point of a run counts, annealed or not. Valid after the warm-up.
    """

    name = "annealing"
    columns = ("rate_sum", "rate_fall")
    parameters = (offset("L0"), scale("A", (-4.0, 2.0)), exponent("alpha"), scale("C", (-6.0, 3.0)))
    axes = {"rate_sum": ("A", "alpha"), "rate_fall": ("C",)}
    may_be_zero = frozenset({"rate_fall"})
    along_schedule = True

    def value(self, p, runs):
        power = jnp.exp(p["log_A"] - p["alpha"] * jnp.log(runs["rate_sum"]))
        return jnp.exp(p["log_L0"]) + power - jnp.exp(p["log_C"]) * runs["rate_fall"]


@dataclasses.dataclass(frozen=True)
class ContinuedAnnealing(SignedLaw):
    """L = L0 + A / (S1p + S1)**alpha - C1 S2p - C2 S2 + B (1 - (1 + F S1)**-beta).   (arXiv 2505.07796)

    S1p, S2p: `prior_rate_sum` and `prior_rate_fall` of the pretraining run up to where it was continued; S1, S2: those of
    continued pretraining so far. B is above 0 for the loss on the old text and below it on the new (the paper's E is F
    here). One model size, no replay. Valid after the warm-up of continued pretraining.
    """

    name = "continued_annealing"
    columns = ("prior_rate_sum", "prior_rate_fall", "rate_sum", "rate_fall")
    parameters = (
        offset("L0"),
        scale("A", (-4.0, 2.0)),
        exponent("alpha", (0.1, 1.0)),
        scale("C1", (-4.0, 2.0)),
        scale("C2", (-4.0, 2.0)),
        Parameter("B", False, (-20.0, 20.0), (-2.0, 2.0)),
        scale("F", (0.0, 9.0)),
        exponent("beta", (0.05, 0.6)),
    )
    axes = {
        "prior_rate_sum": ("A", "alpha"),
        "prior_rate_fall": ("C1",),
        "rate_sum": ("B", "F", "beta"),
        "rate_fall": ("C2",),
    }
    may_be_zero = frozenset({"rate_sum", "rate_fall", "prior_rate_fall"})
    along_schedule = True

    def value(self, p, runs):
        both = runs["prior_rate_sum"] + runs["rate_sum"]
        shift = -jnp.expm1(-p["beta"] * jnp.log1p(jnp.exp(p["log_F"]) * runs["rate_sum"]))
        falls = jnp.exp(p["log_C1"]) * runs["prior_rate_fall"] + jnp.exp(p["log_C2"]) * runs["rate_fall"]
        power = jnp.exp(p["log_A"] - p["alpha"] * jnp.log(both))
        return jnp.exp(p["log_L0"]) + power - falls + p["B"] * shift
