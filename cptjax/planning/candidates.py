"""Plans worth compiling: meshes, remat policies and microbatches that fit on paper, the least to send and to repeat first.

The model on paper is coarse, and only prunes: what is compared in the end is what the compiler made (`searching.py`).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from cptjax.models.config import DecoderConfig
from cptjax.models.flops import flops_per_token
from cptjax.models.model import abstract_weights
from cptjax.planning.chips import Chip
from cptjax.planning.estimate import recomputed_per_token
from cptjax.planning.topology import Topology
from cptjax.sharding.mesh import AXES
from cptjax.training.run import Flags

FITS = 0.85  # of HBM, on paper: a tenth is to stay free, and paper is not exact
REMATS = ("dots_without_batch", "attention_output", "full")
_MOST_TENSOR = 8
# Layers' inputs and results that a policy keeps, in bytes of bfloat16 per token: (of hidden, of heads, of the MLP).
_KEPT = {"full": (1, 0, 0), "attention_output": (1, 1, 0), "dots_without_batch": (3, 3, 2)}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One plan on paper.

    Attributes:
        hbm: bytes of a device; seconds: of a step, everything sent and repeated, nothing hidden.
        compiler_flags: that libtpu is given; nothing on paper depends on them.
    """

    mesh: dict[str, int]
    remat: str
    accumulation: int
    hbm: float
    seconds: float
    compiler_flags: Flags = dataclasses.field(default_factory=dict)

    @property
    def flags(self) -> list[str]:
        """As a command is given them."""
        sizes = {axis: size for axis, size in self.mesh.items() if size > 1} or {"fsdp": 1}
        return [
            f"--gin.run.Run.mesh={sizes}",
            f"--gin.numerics.Numerics.remat='{self.remat}'",
            f"--gin.run.Run.accumulation={self.accumulation}",
            f"--gin.run.Run.compiler_flags={dict(self.compiler_flags)}",
        ]


def candidates(config: DecoderConfig, topology: Topology, rows: int, length: int, state: float) -> list[Candidate]:
    """Those that fit, the quickest on paper first; of each mesh the best only.

    Args:
        rows, length: of the global batch; state: bytes of the weights and of what the optimizer keeps, before they are cut.
    """
    best: dict[tuple[int, ...], Candidate] = {}
    for mesh in meshes(config, topology, rows, length):
        ways = mesh["replica"] * mesh["fsdp"]
        for remat, accumulation in itertools.product(REMATS, _divisors(rows // ways)):
            found = on_paper(config, topology.chip, mesh, remat, accumulation, rows, length, state)
            key = tuple(mesh.values())
            if found.hbm <= FITS * topology.chip.hbm_bytes / topology.chip.devices and (
                key not in best or found.seconds < best[key].seconds
            ):
                best[key] = found
    return sorted(best.values(), key=lambda each: (each.seconds, each.hbm))


def meshes(config: DecoderConfig, topology: Topology, rows: int, length: int) -> Iterator[dict[str, int]]:
    """Every mesh that cuts batch, heads and rows evenly, with slices along `replica`, and on a 3-D torus of 64 devices and more
    with `fsdp` over a part of it: over the whole the compiler makes all-reduces of its gathers.
    """
    devices, torus = topology.devices, topology.chip.axes == 3
    slice_devices = devices // topology.slices
    for tensor, context in itertools.product(_divisors(devices), _divisors(devices)):
        if tensor > _MOST_TENSOR or devices % (tensor * context) or config.heads % tensor or config.mlp % tensor:
            continue
        if context > 1 and length % (2 * context):
            continue
        for fsdp in _divisors(devices // (tensor * context)):
            replica = devices // (tensor * context * fsdp)
            whole = torus and fsdp == slice_devices and slice_devices >= 64
            if replica % topology.slices or rows % (replica * fsdp) or config.hidden % fsdp or whole:
                continue
            yield dict(zip(AXES, (replica, fsdp, context, tensor), strict=True))


def on_paper(
    config: DecoderConfig,
    chip: Chip,
    mesh: dict[str, int],
    remat: str,
    accumulation: int,
    rows: int,
    length: int,
    state: float,
) -> Candidate:
    """What a plan needs by the shapes of its weights and of what its policy keeps."""
    fsdp, tensor, replicas = mesh["fsdp"], mesh["tensor"], mesh["replica"] * mesh["context"]
    parameters = sum(math.prod(spec.shape) for spec in abstract_weights(config).values())
    tokens = rows * length / accumulation / (mesh["replica"] * fsdp * mesh["context"])  # of a device at a time
    heads = (config.heads + 2 * config.kv_heads) * config.head_dim / tensor
    of_hidden, of_heads, of_mlp = _KEPT[remat]
    cut = (of_hidden * config.hidden + of_mlp * config.mlp) / tensor
    kept = 2 * tokens * config.layers * (cut + of_heads * heads)
    layer = 2 * parameters / config.layers / tensor  # a layer's weights, gathered, in bfloat16
    working = 2 * tokens * (4 * config.hidden + heads + 3 * config.mlp / tensor) * 2 + 2 * layer
    gradients = 4 * parameters / (fsdp * tensor) * (2 if accumulation > 1 else 1)
    hbm = state / (fsdp * tensor) + gradients + kept + working

    part = (fsdp - 1) / fsdp
    weights = 2 * parameters / tensor * part * 3 * accumulation  # gathered forward and backward, scattered
    copies = 2 * 4 * parameters / (fsdp * tensor) * (replicas - 1) / replicas * accumulation
    sums = 2 * 2 * tokens * config.hidden * (tensor - 1) / tensor * 6 * config.layers * accumulation
    ring = 2 * 2 * tokens * config.kv_heads * config.head_dim * (mesh["context"] - 1) * 3 * config.layers * accumulation
    sent = (weights + copies + sums + ring) / (chip.axis_bandwidth / chip.devices)
    each = flops_per_token(config, length)
    devices = math.prod(mesh.values())
    computed = (
        (each.training + recomputed_per_token(each, remat)) * rows * length / (devices * chip.flops / chip.devices)
    )
    return Candidate(mesh, remat, accumulation, hbm, computed + sent)


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
