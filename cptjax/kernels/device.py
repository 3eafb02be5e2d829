"""What a program is being made for: the devices of the mesh in force, which need not be here, or this machine's."""

import jax

# What JAX calls TPUs -> their generation.
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
    """The TPU generation whose block sizes a kernel takes; v5e's where there is no TPU, as in an interpreter."""
    return GENERATIONS.get(device_in_use()[1], "v5e")
