"""Laws of what a base model brings along, and of what it loses."""

import dataclasses

import jax.numpy as jnp

from cptjax.scaling.law import Law, exponent, log_tokens, offset, scale


@dataclasses.dataclass(frozen=True)
class Transfer(Law):
    """L(N, D) = E + A / N**alpha + B / (D + k D**a N**b)**beta.   (after Hernandez et al., arXiv 2102.01293)

    The paper's law is the tokens transferred, D_T = k D_F**a N**b; here they are added to those that are read, in a law from
    scratch whose E, A, B, alpha, beta are `given`. The paper counts D in characters and N without embeddings; a fit here has
    the units of its table. Valid while D is at most a tenth of what training from scratch would need: with more, a small
    model that was trained before ends worse than one from scratch (ossification), which this form cannot say.
    """

    name = "transfer"
    columns = ("params", "tokens")
    parameters = (
        offset(),
        scale("A"),
        exponent("alpha"),
        scale("B"),
        exponent("beta"),
        scale("k", (0.0, 20.0)),
        exponent("a", (0.0, 1.0)),
        exponent("b", (0.0, 1.0), (-2.0, 5.0)),
    )
    axes = {"params": ("A", "alpha", "b"), "tokens": ("B", "beta", "k", "a")}
    given = ("E", "A", "alpha", "B", "beta")

    def log_terms(self, p, runs):
        log_n, log_d = jnp.log(runs["params"]), jnp.log(runs["tokens"])
        effective = jnp.logaddexp(log_d, log_transferred(p, log_n, log_d))
        return [p["log_E"], p["log_A"] - p["alpha"] * log_n, p["log_B"] - p["beta"] * effective]


def log_transferred(p, log_params, log_read):
    """log D_T: what the base is worth in tokens (arXiv 2102.01293, eq. 1.1)."""
    return p["log_k"] + p["a"] * log_read + p["b"] * log_params


@dataclasses.dataclass(frozen=True)
class Forgetting(Law):
    """L_general = `prior_loss` + A D**beta / ((1 + B p) N)**alpha.   (arXiv 2502.06042: forgetting with injection)

    prior_loss: the base's loss on the same general text. p: the share of general text mixed in, 1 - `target_share`; one percent
    of it does most of what can be done, since B is some thousands. D: tokens of the domain, `tokens` (all of continued
    pretraining) times `target_share`. Valid for few domain tokens: the loss rises without end with them.
    """

    name = "forgetting"
    columns = ("params", "tokens", "target_share", "prior_loss")
    parameters = (
        scale("A", (-20.0, 10.0)),
        exponent("alpha"),
        exponent("beta"),
        scale("B", (0.0, 12.0)),
    )
    axes = {"params": ("alpha",), "tokens": ("A", "beta"), "target_share": ("B",)}
    may_be_zero = frozenset({"target_share"})

    def log_terms(self, p, runs):
        injected = jnp.log1p(jnp.exp(p["log_B"]) * (1.0 - runs["target_share"]))
        domain = log_tokens(runs["tokens"] * runs["target_share"])
        rise = p["log_A"] + p["beta"] * domain - p["alpha"] * (injected + jnp.log(runs["params"]))
        return [jnp.log(runs["prior_loss"]), rise]
