"""How long a step may take: rooflines of compute, memory and interconnect, and a range between everything hidden and nothing.

Nothing here is measured. libtpu's own time estimates are not used: they are wrong where a program has kernels of its own
(`optimal_seconds` is negative there).
"""

import dataclasses
from collections.abc import Iterable

from cptjax.models.flops import FlopsPerToken, flops_per_token
from cptjax.planning.chips import Chip
from cptjax.planning.collectives import Collective
from cptjax.planning.compiling import Program
from cptjax.training.outline import Outline

# The share of a roofline that a step reaches, for the high end: published runs of such models on TPUs reach 40 to 65% of the
# peak of products in all. The same is taken of memory and interconnect, of which less is published.
EFFICIENCY = 0.5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of a step, and what follows.

    Attributes:
        flops: of a step, counted (causal attention halved), nothing recomputed; recomputed: what remat adds to that.
        compute: at the peak; memory: state and temporaries read and written once; interconnect: everything sent over all links;
        exposed: what no other work is scheduled beside, over the links of one axis of the torus.
        low: the largest of compute, memory, interconnect: all hidden behind it. high: that at `EFFICIENCY`, plus `exposed`.
    """

    flops: float
    recomputed: float
    compute: float
    memory: float
    interconnect: float
    exposed: float

    @property
    def low(self) -> float:
        """The least that it can take."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def high(self) -> float:
        """What it takes where little goes well."""
        return self.low / EFFICIENCY + self.exposed


def step_flops(outline: Outline) -> tuple[float, float]:
    """Operations of a step of the whole batch: counted, and recomputed in the backward pass."""
    each = flops_per_token(outline.config, outline.sequence_length)
    again = recomputed_per_token(each, outline.run.numerics.remat)
    return each.training * outline.batch_tokens, again * outline.batch_tokens


def recomputed_per_token(each: FlopsPerToken, remat: str) -> float:
    """Operations per token that the backward pass repeats: products, by what the policy keeps; the loss's logits always."""
    repeated = {
        "none": 0.0,
        "dots": 0.0,
        "dots_without_batch": each.attention,
        "attention_output": each.projections + each.mlp,
        "full": each.projections + each.attention + each.mlp,
    }
    return repeated[remat] + each.head


def estimate_step(outline: Outline, program: Program, chip: Chip, slices: int) -> Estimate | None:
    """The rooflines of a compiled step on such chips; None: it sends between slices, and nothing is published of how fast."""
    if chip.network_bandwidth is None and any(
        crosses_slices(each, program.devices, slices) for each in program.collectives
    ):
        return None
    flops, recomputed = step_flops(outline)
    state = sum(program.state.values())
    sent = [(each, _bandwidth(each, program, chip, slices)) for each in program.collectives]
    return Estimate(
        flops=flops,
        recomputed=recomputed,
        compute=(flops + recomputed) / (program.chips * chip.flops),
        memory=2 * (state + program.temporaries) / (chip.hbm_bandwidth / chip.devices),
        interconnect=_seconds((each, all_links) for each, (all_links, _) in sent),
        exposed=_seconds((each, one_axis) for each, (_, one_axis) in sent if not each.overlapped),
    )


def crosses_slices(collective: Collective, devices: int, slices: int) -> bool:
    """Whether its groups are on more than one slice; slices come one after the other in the order of the mesh."""
    each = devices // slices
    return len({device // each for device in collective.first_group}) > 1


def _bandwidth(collective: Collective, program: Program, chip: Chip, slices: int) -> tuple[float, float]:
    """Bytes that a device sends in a second: over all links, and over those of one axis."""
    if crosses_slices(collective, program.devices, slices):
        between = chip.network_bandwidth / chip.devices
        return between, between
    return chip.links_bandwidth / chip.devices, chip.axis_bandwidth / chip.devices


def _seconds(sent: Iterable[tuple[Collective, float]]) -> float:
    return sum(each.sent * each.times / bandwidth for each, bandwidth in sent)
