"""Which implementation of attention a program gets, and why."""

import functools
import logging

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import tokamax
from cptjax.kernels.device import GENERATIONS, device_in_use

log = logging.getLogger(__name__)

IMPLEMENTATIONS = ("reference", "pallas_tpu", "splash", "tokamax")


def chosen(implementation: str) -> str:
    """The implementation by name; "auto" is what suits the platform, logged once with its reason.

    Raises:
        ConfigurationError: no implementation has this name, or it would let documents see each other.
    """
    if implementation == "cudnn":
        raise ConfigurationError(
            "attention: cuDNN is not offered: it knows no segment ids, so packed documents would see each other.\n"
            f"  Take one of auto, {', '.join(IMPLEMENTATIONS)}."
        )
    if implementation != "auto":
        if implementation not in IMPLEMENTATIONS:
            names = ", ".join(["auto", *IMPLEMENTATIONS])
            raise ConfigurationError(f"attention: no implementation is called {implementation!r}; there are {names}.")
        return implementation
    return _automatic(*device_in_use())


@functools.lru_cache(maxsize=16)
def _automatic(platform: str, kind: str) -> str:
    """Cached, so that each platform is spoken of once."""
    if platform == "tpu" and kind in GENERATIONS:
        log.info("attention: pallas_tpu, our kernels for %s; they visit only the blocks that documents need.", kind)
        return "pallas_tpu"
    if platform == "tpu":
        log.warning("attention: splash: there are no block sizes of our kernels for %s.", kind)
        return "splash"
    if platform == "cpu":
        return "reference"
    if platform == "gpu" and tokamax.installed():
        log.info("attention: tokamax, on %s; documents are a mask, a byte for each pair of a row's tokens.", kind)
        return "tokamax"
    log.warning(
        "attention: the plain JAX reference, on %s. It is right and linear in memory, and slow: cptjax has no kernel of its own "
        "for this platform, cuDNN's knows no documents, and tokamax (pip install tokamax) is not installed.",
        kind,
    )
    return "reference"
