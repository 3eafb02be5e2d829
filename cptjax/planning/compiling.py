"""The step of a run, compiled for its mesh, and what is found in the program: facts as JSON takes them.

The devices need not be here; then this is a process of its own, with `topology.LIBTPU_ENVIRONMENT`.
"""

import dataclasses
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cptjax.models.model import token_losses
from cptjax.planning.collectives import Collective, Loop, collectives_of
from cptjax.planning.topology import chips_of
from cptjax.sharding.rules import partition_spec
from cptjax.training.outline import Outline

LARGE = 32 << 20  # bytes from which an array that no device has less of is worth a word
_REFUSED = 12  # lines of the compiler's refusal that are kept


@dataclasses.dataclass(frozen=True)
class Program:
    """What was found of a compiled step. Bytes are those of one device.

    Attributes:
        kind, devices, chips, processes, mesh: what it was compiled for.
        state: bytes of the arrays that come and go, by kind, from their shardings: no padding of a layout.
        arguments, temporaries, other: as the compiler allocates them: what it is given, what it makes, outputs that are no
            argument's, and code.
        activations: bytes of what the forward pass keeps for the backward pass, from shapes: a part of `temporaries`.
        whole: name -> bytes of large arrays of the state that every device has whole.
        kernels: how often each Pallas kernel stands in the program.
        seconds: that lowering and compiling took.
        refused: why there is no program, in the compiler's words; all that is found in a program is then empty.
    """

    kind: str
    devices: int
    chips: int
    processes: int
    mesh: dict[str, int]
    state: dict[str, int]
    whole: dict[str, int]
    activations: int
    arguments: int = 0
    temporaries: int = 0
    other: int = 0
    collectives: tuple[Collective, ...] = ()
    kernels: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Program":
        """The reverse of `to_json`."""
        collectives = tuple(
            Collective(
                **{
                    **each,
                    "loops": tuple(Loop(**loop) for loop in each["loops"]),
                    "first_group": tuple(each["first_group"]),
                }
            )
            for each in data["collectives"]
        )
        return cls(**{**data, "collectives": collectives})


def compile_step(outline: Outline) -> tuple[Program, str]:
    """Compiles the step that `outline` trains by; the program's facts, and its HLO text ("" where it was refused)."""
    mesh, began = outline.mesh, time.perf_counter()
    devices = list(mesh.devices.flat)
    state, batch = outline.abstract_step()
    found = Program(
        kind=devices[0].device_kind,
        devices=len(devices),
        chips=chips_of(devices),
        processes=len({device.process_index for device in devices}),
        mesh=dict(mesh.shape),
        state=_state_bytes(state, batch),
        whole=_whole(state),
        activations=activation_bytes(outline),
    )
    with jax.set_mesh(mesh):
        lowered = outline.train_step(state).lower(state, batch)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            refused = "\n".join(str(error).splitlines()[:_REFUSED])
            return dataclasses.replace(found, refused=refused, seconds=time.perf_counter() - began), ""
    text, memory = compiled.as_text(), compiled.memory_analysis()
    return (
        dataclasses.replace(
            found,
            arguments=memory.argument_size_in_bytes,
            temporaries=memory.temp_size_in_bytes,
            other=memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.generated_code_size_in_bytes,
            collectives=tuple(collectives_of(text)),
            kernels=_kernels(text),
            seconds=time.perf_counter() - began,
        ),
        text,
    )


def _bytes_on_device(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _state_bytes(state: dict[str, Any], batch: dict[str, Any]) -> dict[str, int]:
    kinds = {"parameters": "params", "optimizer": "optimizer", "average": "average"}
    sums = {kind: sum(map(_bytes_on_device, jax.tree.leaves(state.get(name, ())))) for kind, name in kinds.items()}
    rest = [leaf for name, value in state.items() if name not in kinds.values() for leaf in jax.tree.leaves(value)]
    return {**sums, "batch": sum(map(_bytes_on_device, [*jax.tree.leaves(batch), *rest]))}


def _whole(state: dict[str, Any]) -> dict[str, int]:
    """Large arrays of the state that no axis cuts."""
    return {
        jax.tree_util.keystr(path): _bytes_on_device(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if leaf.sharding.mesh.size > 1 and leaf.sharding.is_fully_replicated and _bytes_on_device(leaf) >= LARGE
    }


def activation_bytes(outline: Outline) -> int:
    """What each device keeps of a slice's forward pass for the backward pass, under the run's remat policy.

    From the shapes of JAX's own residuals that have the rows' positions among their dimensions: counted on them, not what the
    compiler makes of them. It may keep fewer (it merges equal ones) or others.
    """
    config, numerics, mesh = outline.config, outline.run.numerics, outline.mesh
    rows, length = outline.batch_rows // outline.run.accumulation, outline.sequence_length
    state, batch = outline.abstract_step()
    part = {
        name: jax.ShapeDtypeStruct((rows, length), leaf.dtype, sharding=leaf.sharding)
        for name, leaf in batch.items()
        if leaf.ndim == 2
    }

    def residuals(params, part):
        return jax.vjp(lambda params: jnp.sum(token_losses(params, config, numerics, part)), params)[1]

    with jax.set_mesh(mesh):
        leaves = jax.tree.leaves(jax.eval_shape(residuals, state["params"], part))
    ways = mesh.shape["replica"] * mesh.shape["fsdp"] * mesh.shape["context"]
    total = 0
    for leaf in {id(leaf): leaf for leaf in leaves}.values():
        at = next((i for i in range(leaf.ndim - 1) if leaf.shape[i : i + 2] == (rows, length)), None)
        if at is not None:
            behind = leaf.shape[at + 2 :]
            heads = behind[0] in (config.heads, config.kv_heads) if len(behind) == 2 else behind == (config.mlp,)
            cut = partition_spec(mesh, ("heads",), behind[:1])[0] if heads else None
            size = math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize
            total += size // (ways * (mesh.shape[cut] if cut else 1))
    return total


def _kernels(text: str) -> dict[str, int]:
    calls = [line for line in text.splitlines() if 'custom_call_target="tpu_custom_call"' in line]
    names = (re.search(r"%?([\w\-]+?)[.\d]* = ", line) for line in calls)
    known = (re.search(r"attention_(forward|backward)", line.split(" custom-call(")[0]) for line in calls)
    return dict(Counter(k[0] if k else n[1] for k, n in zip(known, names, strict=True) if n))
