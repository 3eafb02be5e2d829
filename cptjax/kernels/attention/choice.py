"""Which implementation of attention a program gets, and why."""

import functools
import logging

import jax

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import tokamax

log = logging.getLogger(__name__)

IMPLEMENTATIONS = ("reference", "pallas_tpu", "splash", "tokamax")
GENERATIONS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
    "TPU v7x": "tpu7x",
}


def device_in_use() -> tuple[str, str]:
    """Platform and kind of the devices that a program is being made for: those of the mesh in force, which need not be here."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is not None:
        return described.platform, described.device_kind
    device = jax.devices()[0]
    return device.platform, device.device_kind


def generation_in_use() -> str:
    """The TPU generation whose block sizes are taken; v5e's where there is no TPU, as in an interpreter."""
    return GENERATIONS.get(device_in_use()[1], "v5e")


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
