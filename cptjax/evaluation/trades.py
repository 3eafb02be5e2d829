"""What was gained on the target and what was lost of an old domain, and who gives the most for the least."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Trade:
    """One checkpoint's changes from the base, in the unit of the losses.

    Attributes:
        gain: how far the target's loss fell; forgetting: how far the old domain's rose (below 0: it fell too).
        rate: the exchange rate, forgetting per gain; None where nothing was gained.
        on_frontier: no other checkpoint gains at least as much and forgets at most as much, one of them strictly.
    """

    gain: float
    forgetting: float
    rate: float | None
    on_frontier: bool


def trades(changes: Mapping[str, tuple[float, float]]) -> dict[str, Trade]:
    """By label the trade of each checkpoint.

    Args:
        changes: by label the change of the target's loss and that of the old domain's, both from the base.
    """
    points = {label: (-target, old) for label, (target, old) in changes.items()}
    found = {}
    for label, (gain, forgetting) in points.items():
        beaten = any(
            other[0] >= gain and other[1] <= forgetting and other != (gain, forgetting) for other in points.values()
        )
        found[label] = Trade(gain, forgetting, forgetting / gain if gain > 0 else None, not beaten)
    return found
