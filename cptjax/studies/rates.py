"""Which of several learning rates is best, and whether worse ones stand on both of its sides (PROTOCOL.md 4)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Bracket:
    """Learning rates, ascending, and the held-out loss after each: infinite where the run diverged."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @classmethod
    def of(cls, losses: Mapping[float, float]) -> "Bracket":
        rates = tuple(sorted(losses))
        return cls(rates, tuple(losses[rate] for rate in rates))

    @property
    def place(self) -> int:
        """Where the least loss is; one that is not finite is never the least."""
        return int(np.argmin(np.where(np.isfinite(self.losses), self.losses, np.inf)))

    @property
    def best(self) -> float:
        """The rate of the least loss."""
        return self.rates[self.place]

    @property
    def interior(self) -> bool:
        """Whether rates on both sides of the best are worse."""
        return 0 < self.place < len(self.rates) - 1

    def describe(self, name: str) -> str:
        """In one line."""
        shown = described_losses(self.rates, self.losses)
        where = "with worse ones on both sides" if self.interior else "AT THE EDGE of those tried: not bracketed"
        return f"{name}: the best learning rate is {self.best:g}, {where} ({shown} nats/token)"

    def as_json(self) -> dict[str, Any]:
        """Plain data; the loss of a run that diverged is null."""
        return {
            "best": self.best,
            "bracketed": self.interior,
            "rates": list(self.rates),
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses],
        }


def described_losses(rates: Sequence[float], losses: Sequence[float | None]) -> str:
    """Each rate with its loss; one without a finite loss diverged."""
    shown = (f"{loss:.4f}" if loss is not None and math.isfinite(loss) else "diverged" for loss in losses)
    return ", ".join(f"{rate:g}: {loss}" for rate, loss in zip(rates, shown, strict=True))


def next_rate(tried: Sequence[float], best: float) -> float:
    """A rate beyond the edge that the best is at, as far as the last two there are apart."""
    rates = sorted(tried)
    return rates[0] ** 2 / rates[1] if best == rates[0] else rates[-1] ** 2 / rates[-2]
