"""A plan for people and for programs: lines on a terminal, and plan.json."""

import dataclasses
from typing import Any

from cptjax.counts import count
from cptjax.planning.chips import GIB, Chip
from cptjax.planning.collective_table import Group, exposed, grouped, how, sent, table, where
from cptjax.planning.compiling import Program
from cptjax.planning.estimate import EFFICIENCY, Estimate
from cptjax.planning.topology import Topology
from cptjax.planning.warnings import axes_of, in_layers, warnings_of
from cptjax.training.outline import Outline

_SHOWN = 12  # lines of collectives on a terminal


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run's step, compiled, and what follows from it.

    Attributes:
        topology: None where it was compiled for the devices that are here; chip: None where nothing is published of them.
        estimate: None there, and where nothing is published of the network that it sends over.
        price: dollars for a chip and an hour, and of when; None where none is known.
    """

    outline: Outline
    program: Program
    topology: Topology | None
    chip: Chip | None
    estimate: Estimate | None
    price: tuple[float, str] | None

    @property
    def capacity(self) -> float | None:
        """Bytes of HBM of a device."""
        return self.chip.hbm_bytes / self.chip.devices if self.chip else None

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of a device by kind; they add up to what the compiler allocates."""
        program = self.program
        state = {name: size for name, size in program.state.items() if size}
        logical = sum(state.values())
        kept = min(program.activations, program.temporaries)
        return {
            **state,
            "padding": max(0, program.arguments - logical),
            "activations": kept,
            "temporaries": program.temporaries - kept,
            "code and other": program.other,
        }

    @property
    def warnings(self) -> list[str]:
        """As sentences."""
        said = warnings_of(self.program, self.outline, self.capacity)
        if self.topology and self.estimate is None:
            said.append(
                f"nothing is published of {self.topology.generation}'s network between slices: no time is estimated."
            )
        return said

    def run_seconds(self) -> tuple[float, float]:
        """Of all steps, low and high: nothing but steps."""
        return self.estimate.low * self.outline.steps, self.estimate.high * self.outline.steps

    def chip_hours(self) -> tuple[float, float]:
        """Of all steps, low and high."""
        low, high = self.run_seconds()
        return low * self.program.chips / 3600, high * self.program.chips / 3600

    def to_json(self) -> dict[str, Any]:
        """As plan.json has it (DESIGN.md, the command's contract)."""
        program, estimate = self.program, self.estimate
        found = {
            "topology": self.topology.name if self.topology else None,
            "slices": self.topology.slices if self.topology else 1,
            "device_kind": program.kind,
            "devices": program.devices,
            "chips": program.chips,
            "mesh": program.mesh,
            "compiler_flags": dict(self.outline.run.compiler_flags or {}),
            "compile_seconds": round(program.seconds, 1),
            "hbm_bytes": {**self.memory, "total": sum(self.memory.values()), "capacity": self.capacity},
            "batch_tokens": self.outline.batch_tokens,
            "steps": self.outline.steps,
            "sent_bytes": self._sent(),
            "collectives": [self._collective(each) for each in program.collectives],
            "kernels": program.kernels,
            "warnings": self.warnings,
        }
        if estimate is None:
            return found | {"flops_per_step": None, "step_seconds": None}
        return found | {
            "flops_per_step": estimate.flops,
            "recomputed_flops_per_step": estimate.recomputed,
            "roofline_seconds": {
                name: getattr(estimate, name) for name in ("compute", "memory", "interconnect", "exposed")
            },
            "step_seconds": {"low": estimate.low, "high": estimate.high},
            "tokens_per_second": {
                "low": self.outline.batch_tokens / estimate.high,
                "high": self.outline.batch_tokens / estimate.low,
            },
            "chip_hours": dict(zip(("low", "high"), self.chip_hours(), strict=True)),
            "dollars": None
            if self.price is None
            else {name: hours * self.price[0] for name, hours in zip(("low", "high"), self.chip_hours(), strict=True)},
            "price": self.price and {"dollars_per_chip_hour": self.price[0], "as_of": self.price[1]},
        }

    def _sent(self) -> dict[str, float]:
        """Bytes that a device sends in a step: in all, and with no work beside them."""
        every = self.program.collectives
        layers = [each for each in every if in_layers(each, self.outline)]
        return {
            "all": sent(every),
            "in_layers": sent(layers),
            "exposed": exposed(every),
            "exposed_in_layers": exposed(layers),
        }

    def _collective(self, each: Any) -> dict[str, Any]:
        return {
            "kind": each.kind,
            "bytes": each.bytes,
            "sent_bytes": each.sent,
            "times": each.times,
            "group": each.group,
            "axes": list(axes_of(each, self.program.mesh)),
            "overlapped": each.overlapped,
            "how": how(each),
            "in_layer_loop": in_layers(each, self.outline),
            "loop": where(each),
            "array": each.dtype_shape,
            "source": each.source,
        }

    @property
    def groups(self) -> list[Group]:
        """The collectives, those alike together."""
        return grouped(self.program.collectives)


def describe(plan: Plan) -> list[str]:
    """The plan as lines."""
    program, outline = plan.program, plan.outline
    mesh = " x ".join(f"{axis} {size}" for axis, size in program.mesh.items() if size > 1) or "one device"
    lines = [
        f"topology  {plan.topology or 'the devices here'}: {program.chips:,} chips, {program.devices:,} devices "
        f"({program.kind}): {mesh}",
        f"step      {outline.batch_rows:,} rows x {outline.sequence_length:,} = {outline.batch_tokens:,} tokens, "
        f"in {outline.run.accumulation} slice(s); remat {outline.run.numerics.remat}; compiled in {program.seconds:.0f} s",
        *memory_lines(plan),
        *(
            estimate_lines(plan)
            if plan.estimate
            else ["time      no estimate: not all is published of what these devices can do"]
        ),
        f"collectives of a step, a device's bytes ({outline.config.layers // len(outline.config.windows)} trips are the layers'):",
        *(f"  {line}" for line in table(plan.groups[:_SHOWN])),
    ]
    if len(plan.groups) > _SHOWN:
        lines.append(f"  ... and {len(plan.groups) - _SHOWN} more kinds (plan.json)")
    if outline.run.compiler_flags:
        lines.append(f"flags     {', '.join(f'{name}={value}' for name, value in outline.run.compiler_flags.items())}")
    lines += [f"warning: {sentence}" for sentence in plan.warnings] or ["no warnings"]
    return lines


def memory_lines(plan: Plan) -> list[str]:
    """Memory of a device by kind against what there is."""
    total = sum(plan.memory.values())
    of = f" of {plan.capacity / GIB:.2f} ({total / plan.capacity:.0%})" if plan.capacity else ""
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in plan.memory.items() if size >= GIB / 200)
    return [f"memory    {total / GIB:.2f} GiB{of} of each device: {parts}"]


def estimate_lines(plan: Plan) -> list[str]:
    """FLOPs, rooflines, the range and what it costs."""
    estimate, outline = plan.estimate, plan.outline
    low, high = estimate.low, estimate.high
    hours, days = plan.chip_hours(), [seconds / 86400 for seconds in plan.run_seconds()]
    peak = plan.program.chips * plan.chip.flops
    lines = [
        f"flops     {estimate.flops:.3g} of a step (causal attention halved), {estimate.recomputed:.3g} more recomputed",
        f"rooflines compute {estimate.compute:.3g} s at the peak, memory {estimate.memory:.3g} s, interconnect "
        f"{estimate.interconnect:.3g} s over all links; with no work beside it {estimate.exposed:.3g} s over one axis",
        f"time      {low:.3g} to {high:.3g} s a step: from everything hidden behind the longest of them, to that one at "
        f"{EFFICIENCY:.0%} of its speed and every collective waited for that has no work beside it. Not measured",
        f"speed     {count(outline.batch_tokens / high)} to {count(outline.batch_tokens / low)} tokens/s "
        f"(MFU {estimate.flops / high / peak:.0%} to {estimate.flops / low / peak:.0%})",
        f"run       {outline.steps:,} steps: {days[0]:.3g} to {days[1]:.3g} days, "
        f"{count(hours[0])} to {count(hours[1])} chip-hours",
    ]
    if plan.price is None:
        return lines + ["price     none is known of this generation (PRICES)"]
    dollars, as_of = plan.price
    return lines + [
        f"price     ${hours[0] * dollars:,.0f} to ${hours[1] * dollars:,.0f} at ${dollars:.2f} a chip-hour ({as_of}); evaluation, "
        "start-up and saving not counted"
    ]
