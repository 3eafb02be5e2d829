"""The device mesh, built in this one place.

Axes, outermost first: `replica` (copies of the weights, over slices and inside them), `fsdp` (weights, gradients and
optimizer state cut up, batch too), `context` (the sequence), `tensor` (heads, MLP width, vocabulary).
"""

from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from cptjax.errors import ConfigurationError

AXES = ("replica", "fsdp", "context", "tensor")


def mesh_shape(sizes: Mapping[str, int] | None, devices: int) -> tuple[int, ...]:
    """Sizes of `AXES` for `devices` devices; absent axes are 1, one axis may be -1 ("the rest"); default: all fsdp.

    Raises:
        ConfigurationError: an unknown axis, a size below 1, two -1, or a product other than `devices`.
    """
    if sizes is not None and not isinstance(sizes, Mapping):
        raise ConfigurationError(f'MESH = {sizes!r}: write sizes by axis, like {{"fsdp": -1, "tensor": 2}}.')
    sizes = dict(sizes or {"fsdp": -1})
    unknown = sorted(set(sizes) - set(AXES))
    if unknown:
        raise ConfigurationError(f"MESH names the axis {unknown[0]!r}; the axes are {', '.join(AXES)}.")
    given = [sizes.get(axis, 1) for axis in AXES]
    shape = [int(size) if isinstance(size, float) and size.is_integer() else size for size in given]
    if (
        any(isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1) for size in shape)
        or shape.count(-1) > 1
    ):
        raise ConfigurationError(f"MESH = {sizes}: sizes are whole numbers from 1, and at most one of them is -1.")
    fixed = int(np.prod([size for size in shape if size != -1]))
    if -1 in shape and devices % fixed == 0:
        shape[shape.index(-1)] = devices // fixed
    if int(np.prod(shape)) != devices:
        raise ConfigurationError(
            f"MESH = {sizes} does not fit {devices} device(s).\n"
            f"  The product of its axes must be {devices}; write one of them as -1 to take what is left."
        )
    return tuple(shape)


def build_mesh(sizes: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (default: all), every axis Auto (said, because JAX's default changed between versions).

    On a TPU the devices are laid out so that neighbours in the mesh are neighbours on the interconnect, and slices come one after
    the other along `replica`: only sums of gradients go over the network between them.

    Raises:
        ConfigurationError: sizes that do not fit the devices, or a `replica` axis that slices do not divide.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = mesh_shape(sizes, len(devices))
    if devices[0].platform == "tpu":
        grid = _laid_out(shape, devices)
    else:
        grid = np.array(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _laid_out(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    from jax.experimental import mesh_utils

    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    replica, *others = shape
    if replica % slices:
        raise ConfigurationError(
            f"MESH has {replica} on its replica axis, and there are {slices} slices: weights would be cut over the network "
            f"between them.\n  Make replica a multiple of {slices}."
        )
    inside, between = (replica // slices, *others), (slices, *(1 for _ in others))
    return mesh_utils.create_hybrid_device_mesh(inside, between, devices, allow_split_physical_axes=True)


def describe_devices(devices: Iterable[jax.Device]) -> dict[str, str | int]:
    """What a run computes on, as its folder records it."""
    devices = list(devices)
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
    }


def in_host_memory(devices: Iterable[jax.Device]) -> bool:
    """Whether the devices' memory is this process's own: CPU devices, none of another process's."""
    mine = jax.process_index()
    return all(device.platform == "cpu" and device.process_index == mine for device in devices)
