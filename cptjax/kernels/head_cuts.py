"""How the loss is cut: over the devices of a mesh, and on each of them into blocks of logits."""

import math
from typing import NamedTuple

import jax
from jax.sharding import AbstractMesh, PartitionSpec

from cptjax.kernels.device import device_in_use

# Up to so many logits on a device are one block: float32, 64 MiB; on a CPU, which has memory and where the product that
# this saves is dear, 256 MiB. More are cut into blocks of at most TOKENS tokens and LOGITS logits, but of at least COLUMNS
# columns, for each token's gradient is added to once a block of columns (the table: docs/benchmarks.md).
KEPT, KEPT_ON_CPU = 1 << 24, 1 << 26
LOGITS, TOKENS, COLUMNS = 1 << 22, 2048, 2048
# What a TPU's memory is laid out in: there blocks of columns are multiples of it where there are several. Of the gradient's
# reduce-scatter in other blocks libtpu makes an all-reduce (seen on v5p: in 29 of 2,260 columns, and in 31 of 2,176 not).
_LANES = 128


class Blocks(NamedTuple):
    """A device's tokens x columns of the vocabulary, cut into equal blocks; the last ones overlap or are filled up."""

    tokens: int
    token_blocks: int
    columns: int
    column_blocks: int

    @property
    def single(self) -> bool:
        """Whether all is one block: its logits are kept for the backward pass, which so needs a product less."""
        return self.token_blocks == self.column_blocks == 1


def cut_into_blocks(tokens: int, columns: int, limits: tuple[int, int] | None) -> Blocks:
    """Blocks of at most `limits` (tokens, columns); unless given, as the constants above say."""
    cpu = device_in_use()[0] == "cpu"
    kept = KEPT_ON_CPU if cpu else KEPT
    if limits is None and tokens * columns <= kept:
        return Blocks(tokens, 1, columns, 1)
    most_tokens = limits[0] if limits else TOKENS
    token_blocks = -(-tokens // most_tokens)
    each = -(-tokens // token_blocks)
    most_columns = limits[1] if limits else max(COLUMNS, LOGITS // each)
    if not cpu and (exact := _exact(columns, most_columns)):
        return Blocks(each, token_blocks, exact, columns // exact)
    even = -(-columns // -(-columns // most_columns))
    lanes = -(-even // _LANES) * _LANES
    if not cpu and lanes > most_columns >= _LANES:
        lanes = most_columns // _LANES * _LANES
    wide = min(lanes if lanes <= most_columns else even, columns)
    return Blocks(each, token_blocks, wide, -(-columns // wide))


def _exact(columns: int, most: int) -> int | None:
    """The widest block of whole lanes that cuts `columns` without a rest, if there is one not much narrower than `most`.

    Then no block adds to what another has written.
    """
    widths = range(most // _LANES * _LANES, most // 2, -_LANES)
    return next((width for width in widths if width < columns and columns % width == 0), None)


class MeshCut(NamedTuple):
    """What each device of a mesh has of the tokens and of the head's kernel; `mesh` is None where there is one device.

    Attributes:
        tokens, kernel: partitions of the targets and of the kernel.
        token_axes, vocabulary_axes: the mesh axes that cut them.
        width_axes: those that cut the kernel's width, all of them among token_axes. Blocks of the kernel are gathered over
            them as they are needed, and their gradients handed back as they are made: no device ever has the whole.
        width_axis: the kernel's dimension of width.
    """

    mesh: AbstractMesh | None
    tokens: PartitionSpec
    kernel: PartitionSpec
    token_axes: tuple[str, ...]
    vocabulary_axes: tuple[str, ...]
    width_axes: tuple[str, ...]
    width_axis: int

    def first_row(self, rows: int) -> jax.Array | int:
        """The vocabulary's number of this device's first row, of `rows` on each."""
        return jax.lax.axis_index(self.vocabulary_axes) * rows if self.vocabulary_axes else 0

    @property
    def vocabulary_ways(self) -> int:
        """How many parts the vocabulary is in."""
        return math.prod(self.mesh.shape[axis] for axis in self.vocabulary_axes)

    def gathered(self, block: jax.Array) -> jax.Array:
        """A block of the kernel in its full width."""
        if not self.width_axes:
            return block
        return jax.lax.all_gather(block, self.width_axes, axis=self.width_axis, tiled=True)

    def handed_back(self, gradient: jax.Array) -> jax.Array:
        """The gradient of such a block, [width, columns], summed over all tokens: this device's part of the width."""
        if self.width_axes:
            gradient = jax.lax.psum_scatter(gradient, self.width_axes, scatter_dimension=0, tiled=True)
        others = tuple(axis for axis in self.token_axes if axis not in self.width_axes)
        return jax.lax.psum(gradient, others) if others else gradient

    def summed_over_vocabulary(self, x: jax.Array) -> jax.Array:
        """The sum over the devices that have the other parts of the vocabulary."""
        return jax.lax.psum(x, self.vocabulary_axes) if self.vocabulary_axes else x

    def largest_over_vocabulary(self, x: jax.Array) -> jax.Array:
        """The maximum over the same devices."""
        return jax.lax.pmax(x, self.vocabulary_axes) if self.vocabulary_axes else x


# One device, by the kernel's dimension of rows.
ALONE = {axis: MeshCut(None, PartitionSpec(), PartitionSpec(), (), (), (), 1 - axis) for axis in (0, 1)}
