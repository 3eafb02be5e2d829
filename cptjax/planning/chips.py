"""What a TPU chip can do at most, as its maker publishes it.

Sources: cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e and /tpu7x (read 2026-11): peak bfloat16 compute, HBM, and "bi-directional
ICI bandwidth per chip", of which half is one way. None of it is measured here.
"""

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        flops: dense bfloat16 operations in a second.
        hbm_bytes: what a program may use of HBM, as libtpu's compiler says where it refuses one, on each chip.
        hbm_bandwidth: bytes in a second.
        links_bandwidth: bytes that all its links send in a second, one way.
        axes: dimensions of the torus that the links make.
        network_bandwidth: bytes that it sends in a second to another slice; None where that is not published.
        devices: of JAX.
        pod: chips of the largest slice.
        sizes: topologies, as `TOPOLOGY` names them, to choose from.
    """

    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    links_bandwidth: float
    axes: int
    network_bandwidth: float | None
    devices: int
    pod: int
    sizes: tuple[str, ...]

    @property
    def axis_bandwidth(self) -> float:
        """Bytes in a second, one way, of the two links along one axis."""
        return self.links_bandwidth / self.axes


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_TORUS = (
    "2x2x1",
    "2x2x2",
    "2x2x4",
    "2x4x4",
    "4x4x4",
    "4x4x8",
    "4x8x8",
    "8x8x8",
    "8x8x12",
    "8x8x16",
    "8x16x16",
    "16x16x16",
)
CHIPS: dict[str, Chip] = {
    "v4": Chip(275e12, 30.75 * GIB, 1228e9, 300e9, 3, None, 1, 4096, _TORUS),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 200e9, 2, 25e9 / 8, 1, 256, _FLAT),
    "v5p": Chip(459e12, 95.73 * GIB, 2765e9, 600e9, 3, 50e9 / 8, 1, 8960, _TORUS),
    "v6e": Chip(918e12, 31.24 * GIB, 1638e9, 400e9, 2, 100e9 / 8, 1, 256, _FLAT),
    "tpu7x": Chip(2307e12, 2 * 94.74 * GIB, 7380e9, 600e9, 3, 100e9 / 8, 2, 9216, _TORUS),
}
