"""TPU slices by name, "v5p:8x8x8", with nothing of them here: their devices as libtpu's compiler describes them."""

import dataclasses
import difflib
import importlib.util
import math
import re
from collections.abc import Iterable

import jax

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.planning.chips import CHIPS, Chip

# libtpu reads these when it is first imported: no TPU is looked for, and several compile at a time.
LIBTPU_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # nobody is asked over the network which machine this is
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of one generation: "v5p", "8x8x8", and how many of them there are."""

    generation: str
    shape: str
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """What each of its chips can do."""
        return CHIPS[self.generation]

    @property
    def name(self) -> str:
        """As `TOPOLOGY` names one slice."""
        return f"{self.generation}:{self.shape}"

    @property
    def chips(self) -> int:
        """Of all slices."""
        return self.slices * math.prod(map(int, self.shape.split("x")))

    @property
    def devices(self) -> int:
        """Of JAX, of all slices."""
        return self.chips * self.chip.devices

    def __str__(self) -> str:
        return self.name if self.slices == 1 else f"{self.slices} slices of {self.name}"


def find_topology(name: str, slices: float = 1, macro: str = "TOPOLOGY") -> Topology:
    """The topology that a gin file names, by this macro.

    Raises:
        ConfigurationError: no generation of this name, a shape that it does not come in, or libtpu is not installed.
    """
    generation, _, shape = name.partition(":")
    listing = "\n".join(f"    {each:6} {', '.join(chip.sizes)}" for each, chip in CHIPS.items())
    if generation not in CHIPS:
        hint = difflib.get_close_matches(generation, CHIPS, n=1)
        raise ConfigurationError(
            f"{macro} = {name!r}: it is a generation and a shape, like 'v5p:4x4x4'."
            + (f"\n  Did you mean {hint[0]}:...?" if hint else "")
            + f"\n  Shapes, among others:\n{listing}"
        )
    topology = Topology(generation, shape, whole_number(slices, "SLICES", minimum=1))
    axes = {"v5e": 2, "v6e": 2}.get(generation, 3)
    known = shape in topology.chip.sizes
    if (
        not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", shape)
        or shape.count("x") + 1 != axes
        or (not known and topology.chips // topology.slices > topology.chip.pod)
    ):
        raise ConfigurationError(
            f"{macro} = {name!r}: a slice of {generation} has {axes} dimensions and at most {topology.chip.pod:,} chips.\n"
            f"  Shapes, among others:\n{listing}"
        )
    return topology


def check_libtpu(what: str) -> None:
    """Refuses to begin where nothing could be compiled.

    Raises:
        ConfigurationError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigurationError(
            f"{what} compiles for TPUs ahead of time, and libtpu, which does that, is not installed.\n"
            '  pip install "cptjax[aot]"   (in a checkout: pip install -e ".[aot]"); no TPU is needed.'
        )


def devices_of(topology: Topology) -> list[jax.Device]:
    """Its devices, in a process whose environment is `LIBTPU_ENVIRONMENT`'s. The two cores of a v4 are one device, as on its pods.

    Raises:
        ConfigurationError: libtpu does not know this shape.
    """
    from jax.experimental import topologies

    how = {"chip_config_name": "megacore"} if topology.generation == "v4" else {}
    how |= {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **how)
    except jax.errors.JaxRuntimeError as error:
        raise ConfigurationError(
            f"TOPOLOGY = {topology.name!r}: libtpu refuses it: {str(error).splitlines()[0]}\n"
            f"  Shapes, among others: {', '.join(topology.chip.sizes)}"
        ) from None
    return list(found.devices)


def chips_of(devices: Iterable[jax.Device]) -> int:
    """How many chips these devices are on; on a platform without coordinates each is one."""
    devices = list(devices)
    if not hasattr(devices[0], "coords"):
        return len(devices)
    return len({(getattr(device, "slice_index", 0), tuple(device.coords)) for device in devices})
