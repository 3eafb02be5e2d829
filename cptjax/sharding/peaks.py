"""What devices could compute at most: dense bfloat16 FLOPs in a second, as their makers publish them.

MFU is the counted FLOPs of a step over this, whatever dtype is computed in. A device of JAX is not always a chip: v4 without
megacore, v2, v3 and tpu7x have two devices a chip, and the figure is for the device (cloud.google.com/tpu/docs, nvidia.com).
"""

import jax

_PEAKS = {  # device_kind as JAX names it
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,  # SXM
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
}


def peak_flops(device: jax.Device) -> float | None:
    """The device's peak; None for one that is not listed (a CPU's depends on its clock)."""
    kind = device.device_kind
    found = [name for name in _PEAKS if kind == name or kind.startswith(f"{name} ") or kind.startswith(f"{name}-")]
    return _PEAKS[max(found, key=len)] if found else None
