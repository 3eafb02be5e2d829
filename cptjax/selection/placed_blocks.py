"""Blocks of points on the devices of a mesh, as k-means reads them pass after pass."""

import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from cptjax.selection.blocks import padded, unit

_KEPT = 1 << 30  # bytes of points on each device that stay there between passes


class PlacedBlocks:
    """The blocks as the devices want them: float32, of length 1 if spherical, all with as many rows, cut over the mesh.

    What fits in _KEPT bytes of each device stays there from one pass to the next; where that is not all, the rest is read anew.
    """

    def __init__(self, points: Iterable[np.ndarray], spherical: bool, mesh: Mesh | None):
        self.spherical, self.mesh = spherical, mesh
        self._points, self._kept, self._complete, self._rows = points, [], False, 0

    def __iter__(self) -> Iterator[tuple[jax.Array, int]]:
        """(the block, how many of its rows are points) of each."""
        if self._complete:
            yield from self._kept
            return
        devices = 1 if self.mesh is None else self.mesh.size
        room = _KEPT * devices - sum(block.nbytes for block, _ in self._kept)
        n = 0
        for n, block in enumerate(self._points, start=1):
            if n <= len(self._kept):
                yield self._kept[n - 1]
                continue
            self._rows = max(self._rows, -(-len(block) // devices) * devices)
            placed = _prepared(self._placed(padded(block, self._rows)), self.spherical), len(block)
            if len(self._kept) == n - 1 and (room := room - placed[0].nbytes) >= 0:
                self._kept.append(placed)
            yield placed
        self._complete = len(self._kept) == n

    def _placed(self, block: np.ndarray) -> jax.Array | np.ndarray:
        if self.mesh is None:
            return block
        sharding = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        return jax.make_array_from_callback(block.shape, sharding, lambda index: block[index])


@functools.partial(jax.jit, static_argnames="spherical")
def _prepared(block: Float[Array, "rows dim"], spherical: bool) -> Float[Array, "rows dim"]:
    return unit(block) if spherical else block.astype(jnp.float32)
