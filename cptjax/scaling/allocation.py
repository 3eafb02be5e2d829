"""What a fitted law says to buy: sizes and tokens for a budget of compute, and the split between two stages.

Compute is counted as C = 6 N D, as the papers do; a law fitted with another definition of N answers for that N.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import optimize

from cptjax.errors import ConfigurationError
from cptjax.scaling.law import Law

_SIZES = (1e4, 1e16)  # between which the numerical search looks


@dataclasses.dataclass(frozen=True)
class Allocation:
    """N parameters trained on D tokens."""

    params: float
    tokens: float


@dataclasses.dataclass(frozen=True)
class Frontier:
    """The compute-optimal line of a law E + A / N**alpha + B / (D**beta N**gamma): a closed form in C.

    N = G * (C/6)**size_exponent and D = (C/6)**token_exponent / G.   (arXiv 2203.15556, eq. 4; 2407.02118, section 3)
    """

    G: float
    size_exponent: float
    token_exponent: float

    def at(self, compute: float) -> Allocation:
        """The best split of `compute` FLOPs."""
        size = self.G * (compute / 6) ** self.size_exponent
        return Allocation(size, compute / 6 / size)

    @property
    def prefactors(self) -> tuple[float, float]:
        """Of C**exponent, for N and for D, as the papers print them."""
        return self.G * 6**-self.size_exponent, 6**-self.token_exponent / self.G


def frontier(values: Mapping[str, float]) -> Frontier:
    """The compute-optimal line for A, B, alpha, beta and gamma (0 where it is not given).

    Raises:
        ConfigurationError: beta is not above gamma, or alpha is 0: no compute-optimal size exists.
    """
    alpha, beta, gamma = values["alpha"], values["beta"], values.get("gamma", 0.0)
    if alpha <= 0 or beta <= gamma:
        raise ConfigurationError(
            f"No compute-optimal size exists for alpha {alpha:.4g}, beta {beta:.4g}, gamma {gamma:.4g}: "
            "alpha must be above 0 and beta above gamma.\n"
            "  Otherwise a model is always the better the smaller, or the larger, it is: the fit says nothing about sizes."
        )
    total = alpha + beta - gamma
    G = (alpha * values["A"] / ((beta - gamma) * values["B"])) ** (1 / total)
    return Frontier(G, beta / total, (alpha - gamma) / total)


def best_size(
    law: Law, values: Mapping[str, float], compute: float, fixed: Mapping[str, float] | None = None
) -> Allocation:
    """The best split of `compute` = 6 N D for any law of `params` and `tokens`, by numerical search.

    Args:
        fixed: the law's other columns.

    Raises:
        ConfigurationError: the best size is none between 1e4 and 1e16 parameters, or those that leave one token.
    """

    def loss(log_size):
        size = np.exp(log_size)
        return np.log(law.predict(values, {"params": size, "tokens": compute / 6 / size, **(fixed or {})}))

    low, high = np.log(_SIZES[0]), min(np.log(_SIZES[1]), np.log(compute / 6))
    grid = np.linspace(low, high, 200)
    place = int(np.argmin(loss(grid)))
    if place in (0, len(grid) - 1):
        raise ConfigurationError(
            f"The law '{law.name}' has no best size for {compute:g} FLOPs: the edge of the search, "
            f"{np.exp(grid[place]):.3g} parameters, is best."
        )
    best = optimize.minimize_scalar(
        lambda point: float(loss(point)),
        bounds=(grid[place - 1], grid[place + 1]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    size = float(np.exp(best.x))
    return Allocation(size, compute / 6 / size)


def general_tokens(values: Mapping[str, float], total: float, domains: int = 1) -> float:
    """How many of the tokens that a domain's model sees should be general ones, by `effective_tokens`.   (closed form, ours)

    With one trunk for K domains, general tokens are paid once: the budget is D + K D' = `total`. The best D is
    (K kappa rho)**(1 / (1 - rho)), whatever N and the budget are, as long as the budget holds it; the rest is the domains'.

    Args:
        values: kappa and rho.
        total: tokens paid for, trunk and all branches together.
        domains: K.

    Returns:
        D, at most `total`.

    Raises:
        ConfigurationError: rho is not between 0 and 1.
    """
    kappa, rho = values["kappa"], values["rho"]
    if not 0 < rho < 1:
        raise ConfigurationError(f"The split has no inner optimum for rho = {rho:.4g}; it must be between 0 and 1.")
    return min(float(total), (domains * kappa * rho) ** (1 / (1 - rho)))


def allocated(law: Law, values: Mapping[str, float]) -> dict[str, float]:
    """What a law's closed form says, by name; empty for a law that has none here.

    `G`, `size_exponent` and `token_exponent` of the compute-optimal line, or `general_tokens` (of a budget without end, one
    domain).

    Raises:
        ConfigurationError: these parameters have no optimum.
    """
    if law.name in ("chinchilla", "cross_lingual", "joint_term"):
        return dataclasses.asdict(frontier(values))
    if law.name == "effective_tokens":
        return {"general_tokens": general_tokens(values, np.inf)}
    return {}
