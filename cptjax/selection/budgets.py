"""How much of a corpus to keep, and which units that are: those with the smallest scores.

Every policy of selection gives each unit (a document, or a passage of one) a number, and keeps the units with the smallest, as
far as the budget goes. So a smaller budget keeps a part of what a larger one keeps.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError

OF = ("tokens", "units")


@dataclasses.dataclass(frozen=True)
class Budget:
    """Either a share, or an amount, of tokens or of units. (Of documents, where each unit is a whole one.)"""

    share: float | None = None
    amount: int | None = None
    of: str = "tokens"

    def __post_init__(self):
        if (self.share is None) == (self.amount is None):
            raise ConfigurationError(
                f"a budget is either a share or an amount; share = {self.share}, amount = {self.amount}."
            )
        if self.share is not None and not 0 <= self.share <= 1:
            raise ConfigurationError(f"a budget's share is {self.share}; it must lie between 0 and 1.")
        if self.of not in OF:
            raise ConfigurationError(f"a budget is of {self.of!r}; it is of one of {', '.join(OF)}.")
        if self.amount is not None:
            object.__setattr__(self, "amount", whole_number(self.amount, "a budget's amount"))

    def costs(self, sizes: Int[np.ndarray, " units"]) -> Int[np.ndarray, " units"]:
        """What each unit takes of the budget, from its size in tokens."""
        return np.asarray(sizes, np.int64) if self.of == "tokens" else np.ones(len(sizes), np.int64)

    def limit(self, sizes: Int[np.ndarray, " units"]) -> int:
        """What the budget is of units of these sizes in tokens: a share rounded to the nearest whole, halves up."""
        if self.amount is not None:
            return self.amount
        return math.floor(self.share * int(self.costs(sizes).sum()) + 0.5)


def smallest(
    scores: Float[np.ndarray, " units"],
    sizes: Int[np.ndarray, " units"],
    budget: Budget,
    eligible: Bool[np.ndarray, " units"] | None = None,
) -> Bool[np.ndarray, " units"]:
    """Which units to keep: in the order of their scores (ties by index), until the next one would go beyond the budget.

    Of units exactly the budget (or all there are); of tokens less than it by fewer than the size of the next unit.

    Args:
        scores: no NaN among those that are eligible; infinity comes last.
        sizes: in tokens.
        eligible: the units to choose from; None: all. A budget's share is one of *all* units all the same.
    """
    order = np.arange(len(sizes)) if eligible is None else np.flatnonzero(eligible)
    order = order[np.argsort(scores[order], kind="stable")]
    kept = np.zeros(len(sizes), bool)
    kept[order[: np.searchsorted(np.cumsum(budget.costs(sizes)[order]), budget.limit(sizes), "right")]] = True
    return kept


def threshold_of(scores: Float[np.ndarray, " units"], kept: Bool[np.ndarray, " units"]) -> float:
    """The largest score that was kept: of SemDeDup's similarities 1 - epsilon. -inf where none was kept."""
    return float(scores[kept].max(initial=-np.inf))
