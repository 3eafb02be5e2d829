"""Which implementation of attention a program gets, and why."""

import functools
import logging
from typing import NamedTuple

from cptjax.errors import ConfigurationError
from cptjax.kernels.attention import tokamax
from cptjax.kernels.device import GENERATIONS, device_in_use

log = logging.getLogger(__name__)

# By name, with the platform that each is for; None: any.
PLATFORMS = {"reference": None, "pallas_tpu": "tpu", "splash": "tpu", "tokamax": "gpu"}
IMPLEMENTATIONS = tuple(PLATFORMS)


class Choice(NamedTuple):
    """An implementation, the reason for it, and whether it is one to regret."""

    name: str
    why: str
    loud: bool = False


def choose(implementation: str, platform: str, kind: str) -> Choice:
    """The implementation for devices of this platform and kind: the named one, or for "auto" what suits them.

    Raises:
        ConfigurationError: no implementation has this name, or it would let documents see each other.
    """
    check_name(implementation)
    if implementation != "auto":
        return Choice(implementation, "as asked for")
    if platform == "tpu":
        if kind in GENERATIONS:
            return Choice("pallas_tpu", f"our kernels, on {kind}; they visit only the blocks that documents need")
        return Choice(
            "reference", f"plain JAX, which is slow: there are no block sizes of our kernels for {kind}", loud=True
        )
    if platform == "cpu":
        return Choice("reference", "plain JAX, on a CPU")
    if platform == "gpu" and tokamax.installed():
        return Choice("tokamax", f"on {kind}; documents are a mask, a byte for each pair of a row's tokens")
    return Choice(
        "reference",
        f"plain JAX, on {kind}: right, linear in memory, and slow. cptjax has no kernel of its own for this platform, cuDNN's "
        "knows no documents, and tokamax (pip install tokamax) is not installed",
        loud=True,
    )


def check_name(implementation: str) -> None:
    """Refuses a name that no implementation has.

    Raises:
        ConfigurationError: with those that there are, or why this one is not among them.
    """
    names = ", ".join(["auto", *IMPLEMENTATIONS])
    if implementation == "cudnn":
        raise ConfigurationError(
            "attention: cuDNN is not offered: it knows no segment ids, so packed documents would see each other.\n"
            f"  Take one of {names}."
        )
    if implementation not in ("auto", *IMPLEMENTATIONS):
        raise ConfigurationError(f"attention = {implementation!r}: no implementation has this name; there are {names}.")


def check_platform(choice: Choice, platform: str) -> None:
    """Refuses to run on `platform` what is for another. (An interpreter may.)

    Raises:
        ConfigurationError: with the platform that it is for.
    """
    if choice.name == "tokamax":
        tokamax.check_installed()
    needed = PLATFORMS[choice.name]
    if needed not in (None, platform):
        raise ConfigurationError(
            f"ATTENTION = {choice.name!r} is for a {needed.upper()}; the devices here are {platform.upper()}s.\n"
            "  Take 'auto', or 'reference'."
        )


def chosen(implementation: str) -> str:
    """The name of the implementation for the devices in use; what "auto" chooses is logged once with its reason.

    Raises:
        ConfigurationError: see `choose`.
    """
    if implementation in IMPLEMENTATIONS:
        return implementation
    return _logged(implementation, *device_in_use())


@functools.lru_cache(maxsize=16)
def _logged(implementation: str, platform: str, kind: str) -> str:
    """Cached, so that each platform is spoken of once."""
    choice = choose(implementation, platform, kind)
    log.log(logging.WARNING if choice.loud else logging.INFO, "attention: %s: %s.", choice.name, choice.why)
    return choice.name
