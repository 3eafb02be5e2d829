"""How much of a run may be new text before the general loss has risen by more than is allowed."""

import numpy as np
from jaxtyping import Float

from cptjax.errors import ConfigurationError


def share_at_limit(
    shares: Float[np.ndarray, " runs"], general_losses: Float[np.ndarray, " runs"], limit: float
) -> float:
    """The largest share of new text at which the general loss is within `limit`, between the shares that were run.

    The losses of a sweep at one size and one number of tokens, in any order; straight lines between neighbours, as the
    loss rises with the share. The critical mixture ratio of arXiv 2407.17467 with `limit` the base's loss plus a tolerance (there
    0.05), and of arXiv 2406.01375 with it times 1.03.

    Raises:
        ConfigurationError: fewer than two shares, the limit is exceeded at the smallest of them, or kept at the largest: it
            lies outside what was run.
    """
    order = np.argsort(shares)
    shares, losses = np.asarray(shares, np.float64)[order], np.asarray(general_losses, np.float64)[order]
    if len(shares) < 2:
        raise ConfigurationError("A share at a limit takes runs with two shares of new text at least.")
    above = losses > limit
    if above[0] or not above[-1]:
        end, what = (shares[0], "exceeded already") if above[0] else (shares[-1], "still kept")
        raise ConfigurationError(
            f"The limit of {limit:.4f} nats is {what} at a share of {end:.3g}: run shares on both sides of it."
        )
    after = int(np.argmax(above))
    low, high = losses[after - 1], losses[after]
    return float(shares[after - 1] + (shares[after] - shares[after - 1]) * (limit - low) / (high - low))
