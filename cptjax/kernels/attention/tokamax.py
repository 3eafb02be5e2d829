"""tokamax's attention behind our interface, for GPUs: what there is that hides documents from each other there."""

import importlib.util

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention.intervals import Intervals, seen
from cptjax.kernels.attention.residuals import RESULT


def installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("tokamax") is not None


def check_installed() -> None:
    """Refuses to go on without the package.

    Raises:
        ConfigurationError: with what to install.
    """
    if not installed():
        raise ConfigurationError(
            "attention: 'tokamax' is not installed. It asks for Python 3.12 and a GPU: pip install tokamax.\n"
            "  Or take 'reference'."
        )


def tokamax_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    intervals: Intervals,
    *,
    causal: bool,
    soft_cap: float | None,
    scale: float,
) -> jax.Array:
    """See `attention.attention`. Its interface takes documents as a mask, a byte for each pair of a row's tokens.

    Args:
        intervals: whom each query sees.
        causal: what the intervals say as well, from which a kernel may know what it need not visit.

    Raises:
        ConfigurationError: the package is not installed.
    """
    check_installed()
    import tokamax  # not at the top: an optional package, which takes a while

    mask = seen(intervals, jnp.arange(key.shape[1]))[:, None]
    exact = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None
    out = tokamax.dot_product_attention(
        query, key, value, mask=mask, is_causal=causal, scale=scale, logits_soft_cap=soft_cap, precision=exact
    )
    return checkpoint_name(out.astype(query.dtype), RESULT)
