"""What whoever rents the pod should know before: a program that fits badly, or sends what it need not."""

import math
from collections.abc import Sequence

from cptjax.counts import in_bytes
from cptjax.models.model import abstract_weights
from cptjax.planning.collective_table import sent
from cptjax.planning.collectives import Collective
from cptjax.planning.compiling import Program
from cptjax.training.outline import Outline

FULL = 0.9  # of HBM
PADDED = 0.05  # of what the state's own shapes need
_SMALL = 1 << 20  # bytes below which a collective is not worth a word


def in_layers(collective: Collective, outline: Outline) -> bool:
    """Whether it runs once for each layer (or repetition of the pattern of layers).

    By the trips of its loops, but for the one over slices of the batch, the outermost: it may have as many.
    """
    repeats, slices = outline.config.layers // len(outline.config.windows), outline.run.accumulation
    trips = [loop.trips for loop in collective.loops]
    if slices > 1 and slices in trips:
        trips.remove(slices)  # the first, which is the outermost
    return repeats in trips and "shard_map/while" not in collective.source


def axes_of(collective: Collective, mesh: dict[str, int]) -> tuple[str, ...]:
    """The axes of the mesh along which the devices of a group differ."""
    places = []
    for device in collective.first_group:
        place = []
        for size in reversed(mesh.values()):
            device, at = divmod(device, size)
            place.append(at)
        places.append(place[::-1])
    return tuple(axis for axis, values in zip(mesh, zip(*places, strict=True), strict=True) if len(set(values)) > 1)


def whole_weight_reductions(program: Program, outline: Outline) -> list[Collective]:
    """All-reduces over `fsdp` of arrays as large as a weight: each device gets the whole sum, and needs its part.

    Of activations such sums are over `tensor` alone, and of a part of a weight over `replica` alone.
    """
    least = min(weight_elements(outline), default=0)
    return [
        each
        for each in program.collectives
        if each.kind == "all-reduce"
        and each.bytes >= _SMALL
        and "fsdp" in axes_of(each, program.mesh)
        and _elements(each) * program.mesh["tensor"] >= least
    ]


def weight_elements(outline: Outline) -> list[int]:
    """Numbers in each matrix of a layer, of the embedding and of the head."""
    return [
        math.prod(spec.shape[len(spec.counts) :])
        for spec in abstract_weights(outline.config).values()
        if len(spec.shape) - len(spec.counts) >= 2
    ]


def warnings_of(program: Program, outline: Outline, capacity: float | None) -> list[str]:
    """As sentences, the worst first.

    Args:
        capacity: bytes of HBM of a device; None where that is not known.
    """
    said = []
    used = program.arguments + program.temporaries + program.other
    if capacity and used > capacity:
        said.append(
            f"does NOT fit: {used / capacity:.0%} of a device's memory would be used. More of MESH's fsdp or tensor, "
            "REMAT = 'full', a higher ACCUMULATION, or a smaller BATCH_TOKENS make it smaller."
        )
    elif capacity and used > FULL * capacity:
        said.append(
            f"{used / capacity:.0%} of a device's memory is used; above {FULL:.0%} fragments and a larger batch of evaluation "
            "may not fit."
        )
    wrong = whole_weight_reductions(program, outline)
    for place, found in (
        ("in the layer loop", [each for each in wrong if in_layers(each, outline)]),
        ("outside the layer loop", [each for each in wrong if not in_layers(each, outline)]),
    ):
        if found:
            said.append(
                f"{len(found)} all-reduce of whole weights {place} (the largest {_largest(found)}): "
                f"{in_bytes(sent(found))} sent by each device in a step, where a "
                "reduce-scatter sends half. On a 3-D torus a group of the whole slice always is one: take fsdp over a part of it."
            )
    gathers = [
        each
        for each in program.collectives
        if each.kind == "all-gather" and each.bytes >= _SMALL and not each.overlapped and in_layers(each, outline)
    ]
    if gathers:
        said.append(
            f"{len(gathers)} all-gather in the layer loop with no work beside it (the largest {_largest(gathers)}): "
            f"{in_bytes(sent(gathers))} in a step."
        )
    for name, size in program.whole.items():
        said.append(f"{name} is whole on every device: {in_bytes(size)} of each.")
    logical = sum(program.state.values())
    if program.arguments > (1 + PADDED) * logical:
        said.append(
            f"the state takes {program.arguments / logical - 1:.0%} more than its shapes: the layout fills dimensions up."
        )
    config, tensor = outline.config, program.mesh["tensor"]
    for what, size in (
        ("heads", config.heads),
        ("rows of the vocabulary", config.vocabulary_rows),
        ("mlp", config.mlp),
    ):
        if size % tensor:
            said.append(
                f"{size:,} {what} are not cut by the mesh's tensor axis ({tensor} ways): every device has them all."
            )
    attending = any(name == "attention_forward" or name.startswith("splash_") for name in program.kernels)
    if not attending and program.kind.startswith("TPU"):
        said.append("no kernel for attention is in the program: plain JAX takes its place, which is slow.")
    return said


def _largest(found: Sequence[Collective]) -> str:
    return max(found, key=lambda each: each.bytes).dtype_shape


def _elements(collective: Collective) -> int:
    _, _, shape = collective.dtype_shape.partition("[")
    return math.prod(int(size) for size in shape.rstrip("]").split(",") if size)
