"""One table from logical axes to mesh axes, and the two ways it is used: where weights live, where activations live."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

# Logical axis -> the mesh axes that cut it. What is not named here is never cut.
RULES: dict[str, tuple[str, ...]] = {
    # activations
    "batch": ("replica", "fsdp"),
    "sequence": ("context",),
    "stream": (
        "context",
        "tensor",
    ),  # the sequence between blocks: sums and norms, which no head and no channel of an MLP cuts
    # weights; `hidden` is the axis that FSDP cuts
    "hidden": ("fsdp",),
    "vocabulary": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
}

LogicalAxes = tuple[str | None, ...]


def partition_spec(mesh: Mesh | AbstractMesh, axes: LogicalAxes, shape: Sequence[int]) -> PartitionSpec:
    """The partition of an array of `shape` whose dimensions carry the logical `axes`.

    A dimension that its mesh axes do not divide is cut by the first of them that do, or stays whole (a vocabulary of 50257 on 8
    chips is replicated, not padded).
    """
    entries = []
    for axis, size in zip(axes, shape, strict=True):
        names = tuple(name for name in RULES.get(axis or "", ()) if mesh.shape.get(name, 1) > 1)
        while names and size % math.prod(mesh.shape[name] for name in names):
            names = names[:-1]
        entries.append(names if len(names) > 1 else names[0] if names else None)
    return PartitionSpec(*entries)


def sharding_of(mesh: Mesh, axes: LogicalAxes, shape: Sequence[int]) -> NamedSharding:
    """Where an array with these logical axes lives on `mesh`."""
    return NamedSharding(mesh, partition_spec(mesh, axes, shape))


def is_cut() -> bool:
    """Whether the mesh in force (`jax.set_mesh`) cuts anything: there is one, and an axis of `RULES` is longer than 1."""
    shape = jax.sharding.get_abstract_mesh().shape
    return any(shape.get(name, 1) > 1 for names in RULES.values() for name in names)


def stream_is_cut() -> bool:
    """Whether the mesh in force cuts the sequence between blocks by more than it does within them."""
    shape = jax.sharding.get_abstract_mesh().shape
    return any(shape.get(name, 1) > 1 for name in RULES["stream"] if name not in RULES["sequence"])


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins an activation to its logical axes on the mesh in force (`jax.set_mesh`); without a mesh, returns it as it is.

    Activations name `hidden` as None: FSDP cuts the weights along it, never the activations.
    """
    if not is_cut():
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(jax.sharding.get_abstract_mesh(), axes, x.shape))
