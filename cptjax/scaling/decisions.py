"""What to do with a checkpoint, some text and a budget, by fitted laws: answers in numbers, each with the law it comes from.

Compute is 6 N D. A decision takes a law's parameters as they are; whoever asks takes it of each bootstrap refit in turn, and so
has an interval.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy import optimize

from cptjax.errors import ConfigurationError
from cptjax.scaling.allocation import Allocation, best_size
from cptjax.scaling.data_constrained import worth
from cptjax.scaling.law import Law
from cptjax.scaling.solver import float64_on_cpu

_POINTS = 2001  # of a grid of sizes, tokens or shares


@dataclasses.dataclass(frozen=True)
class Values:
    """A law with its parameters."""

    law: Law
    params: Mapping[str, float]

    def __call__(self, **columns: np.ndarray | float) -> np.ndarray:
        """The prediction for columns by name; those that the law does not read are left out."""
        return self.law.predict(self.params, {name: columns[name] for name in self.law.columns if name in columns})


@dataclasses.dataclass(frozen=True)
class Continuing:
    """Continuing a checkpoint of `params` parameters against starting afresh, for the same FLOPs on new text.

    Attributes:
        continued, afresh, afresh_any_size: the loss after the budget: of the checkpoint continued, of a new model of its size, of a
            new model of the size that is best for the budget.
        best: that size and its tokens.
        break_even: the FLOPs from which on starting afresh, at the best size, is at least as good; inf where it is not at 1e4
            times the budget.
        saved: the share of FLOPs that continuing saves at its own loss, against the best size from scratch; below 0: lost; nan
            where 1e4 times the budget does not reach that loss. The base's own training is not counted (nor does arXiv
            2407.02118).
    """

    continued: float
    afresh: float
    afresh_any_size: float
    best: Allocation
    break_even: float
    saved: float


def continue_or_start(continuing: Values, scratch: Values, params: float, compute: float, **fixed: float) -> Continuing:
    """Weighs continuing a checkpoint against starting afresh with the same compute.

    Args:
        continuing: a law of the continued checkpoint's loss on the new text, by `params` and `tokens`.
        scratch: a law of the loss on the same text from scratch.
        fixed: further columns that `continuing` reads, such as `prior_tokens`.
    """

    def continued(flops):
        return continuing(params=params, tokens=flops / 6 / params, **fixed)

    best = best_size(scratch.law, scratch.params, compute)
    here = float(continued(compute))
    equal = _crossing(lambda flops: _afresh(scratch, flops) - here, compute)
    return Continuing(
        here,
        float(scratch(params=params, tokens=compute / 6 / params)),
        float(scratch(params=best.params, tokens=best.tokens)),
        best,
        _crossing(lambda flops: _afresh(scratch, flops) - continued(flops), compute),
        1 - compute / equal if np.isfinite(equal) else float("nan"),
    )


def _afresh(scratch: Values, flops: np.ndarray) -> np.ndarray:
    """The least loss from scratch of any size, for each budget; sizes 2% apart, so within some 1e-6 of it."""
    sizes = np.geomspace(1e4, 1e16, 1400)
    sizes, budgets = np.meshgrid(sizes, flops)
    tokens = np.maximum(budgets / 6 / sizes, 1e-3)
    return scratch(params=sizes, tokens=tokens).min(axis=1)


def _crossing(difference: Callable[[np.ndarray], np.ndarray], near: float) -> float:
    """The least compute from which on a difference is at most 0, within a factor of 1e4 of `near`; inf where it is not at its end.

    The last crossing, not the first: a law without a finite value at no tokens loses at budgets of next to nothing, too.
    """
    grid = near * np.geomspace(1e-4, 1e4, 81)
    for _ in range(3):  # each time between the two neighbours
        values = difference(grid)
        above = np.flatnonzero(values > 0)
        if not len(above):
            return float(grid[0])
        place = int(above[-1]) + 1
        if place == len(grid):
            return float("inf")
        low, high = grid[place - 1], grid[place]
        grid = np.geomspace(low, high, 21)
    share = values[place - 1] / (values[place - 1] - values[place])
    return float(low * (high / low) ** share)


@dataclasses.dataclass(frozen=True)
class Epochs:
    """The best use of `unique` tokens of text for a budget.

    Attributes:
        params, tokens: the best size, and how many tokens it reads.
        epochs: how often it reads the text.
        worth: what those tokens are worth in new ones.
    """

    params: float
    tokens: float
    epochs: float
    worth: float


def epochs_for(constrained: Values, unique: float, compute: float, params: float | None = None) -> Epochs:
    """How often to read a text of `unique` tokens: at a given size, or at the best one for the compute.

    Args:
        constrained: `data_constrained` fitted.   (arXiv 2305.16264)
    """

    if constrained.law.name != "data_constrained":
        raise ConfigurationError(f"The law '{constrained.law.name}' knows nothing of epochs; data_constrained does.")

    def loss(size):
        tokens = compute / 6 / size
        return constrained(params=size, tokens=tokens, unique_tokens=np.minimum(unique, tokens))

    if params is None:
        sizes = np.geomspace(1e4, compute / 6 / 1e3, _POINTS)
        params = float(sizes[np.argmin(loss(sizes))])
    tokens = compute / 6 / params
    with float64_on_cpu():
        effective = float(worth(tokens, min(unique, tokens), np.log(constrained.params["R_D"])))
    return Epochs(params, tokens, tokens / min(unique, tokens), effective)


def replay_for(forgetting: Values, params: float, tokens: float, limit: float) -> float:
    """The least share of general text, of `tokens` in all, with which the general loss rises by at most `limit` nats.

    By `forgetting` (arXiv 2502.06042) the rise is above the base's loss; by `general_mixture` (arXiv 2406.01375), which knows no
    base, it is above what general text alone would give.

    Returns:
        Between 0 and 1, to 1e-9 by bisection: the rise falls with the share.

    Raises:
        ConfigurationError: no share does, or the law is another.
    """
    if forgetting.law.name not in ("forgetting", "general_mixture"):
        raise ConfigurationError(
            f"The law '{forgetting.law.name}' says nothing about replay; forgetting and general_mixture do."
        )
    columns = {"params": params, "tokens": tokens, "prior_loss": 1.0}  # of `forgetting` only the rise above it is asked
    alone = float(forgetting(**columns, target_share=0.0)) if forgetting.law.name == "general_mixture" else 1.0

    def above(share: float) -> float:
        return float(forgetting(**columns, target_share=1 - share)) - alone - limit

    if not above(1.0) <= 0:
        raise ConfigurationError(
            f"No share of general text keeps the limit of {limit:g} nats for {params:g} parameters after {tokens:g} tokens."
        )
    return 0.0 if above(0.0) <= 0 else float(optimize.brentq(above, 0.0, 1.0, xtol=1e-9))


@dataclasses.dataclass(frozen=True)
class Domain:
    """A domain to specialise in.

    Attributes:
        law: its law by `params`, `prior_tokens` and `tokens`.
        weight: what its loss counts.
        most: tokens that it has at most (its text times the epochs that are allowed).
    """

    law: Values
    weight: float = 1.0
    most: float = np.inf


@dataclasses.dataclass(frozen=True)
class Split:
    """General tokens and the tokens of each domain; `general` is of one trunk, or of each model where they are independent."""

    general: float
    domains: Sequence[float]
    loss: float


def split_tokens(domains: Sequence[Domain], params: float, total: float, shared: bool = True) -> Split:
    """Splits tokens between general training and K domains of their own laws, weights and sizes.   (what arXiv 2603.19149 asks)

    With one trunk, D + sum of D'_k = `total`; with independent models, each pays for its own D: K D + sum of D'_k = `total`. For
    each D the rest is shared out so that another token is worth the same in every domain that may have more of them (a
    Lagrange multiplier); then the best D is searched for. Losses must fall ever more slowly in D', as those of all laws here do.

    Returns:
        The split, and the weighted mean loss.
    """
    weights = np.array([each.weight for each in domains]) / sum(each.weight for each in domains)
    trunks = 1 if shared else len(domains)

    def split(log_general: float) -> Split:
        general = float(np.exp(log_general))
        tokens = _shared_out(domains, weights, params, general, total - trunks * general)
        losses = [
            float(each.law(params=params, prior_tokens=general, tokens=some))
            for each, some in zip(domains, tokens, strict=True)
        ]
        return Split(general, tokens.tolist(), float(weights @ losses))

    tried = np.log(total / trunks * np.geomspace(1e-6, 1 - 1e-6, 61))
    place = int(np.argmin([split(point).loss for point in tried]))
    between = tried[max(0, place - 1)], tried[min(place + 1, len(tried) - 1)]
    best = optimize.minimize_scalar(
        lambda point: split(point).loss, bounds=between, method="bounded", options={"xatol": 1e-6}
    )
    return split(float(best.x))


def _shared_out(
    domains: Sequence[Domain], weights: np.ndarray, params: float, general: float, rest: float
) -> Float[np.ndarray, " domains"]:
    """The tokens of each domain, `rest` in all or as many as they have, at which another is worth the same in each."""
    most = np.array([each.most for each in domains])
    if most.sum() <= rest:
        return most
    log_grid = np.linspace(np.log(rest) - 25, np.log(rest), _POINTS)
    losses = np.array([each.law(params=params, prior_tokens=general, tokens=np.exp(log_grid)) for each in domains])
    worth_more = -np.gradient(weights[:, None] * losses, log_grid, axis=1) / np.exp(log_grid)
    worth_more = np.log(np.maximum(np.maximum.accumulate(worth_more[:, ::-1], axis=1), 1e-300))  # falling in the tokens

    def tokens(log_price: float) -> np.ndarray:
        wanted = np.array([np.exp(np.interp(log_price, each, log_grid[::-1])) for each in worth_more])
        return np.minimum(wanted, most)

    low, high = worth_more.min(), worth_more.max()
    if tokens(low).sum() <= rest:
        return tokens(low)
    return tokens(optimize.brentq(lambda price: tokens(price).sum() - rest, low, high, xtol=1e-12))
