"""What one device does for `linear_cross_entropy`: its tokens against its part of the vocabulary, forward and backward."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cptjax.kernels.head_cuts import Blocks, MeshCut, cut_into_blocks
from cptjax.kernels.logit_blocks import (
    Columns,
    block_logits,
    counted,
    gradient_of_product,
    picked,
    product,
    product_over_tokens,
)

_LOWEST = -1e30  # what a maximum starts from: finite, so that columns that are all padding give no inf - inf


class Settings(NamedTuple):
    """What is known when the program is made; see `linear_cross_entropy`."""

    vocabulary_axis: int
    vocabulary: int
    soft_cap: float | None
    limits: tuple[int, int] | None
    cut: MeshCut


class _KernelBlocks(NamedTuple):
    """This device's part of the head's kernel, block by block."""

    kernel: jax.Array
    settings: Settings
    blocks: Blocks

    @property
    def rows(self) -> int:
        return self.kernel.shape[self.settings.vocabulary_axis]

    @property
    def overlapping(self) -> bool:
        """Whether the last block begins within the one before."""
        return self.blocks.columns * self.blocks.column_blocks > self.rows

    def start(self, index: jax.Array) -> jax.Array:
        """The row that block `index` begins with."""
        return jnp.minimum(index * self.blocks.columns, self.rows - self.blocks.columns)

    def columns(self, index: jax.Array) -> Columns:
        """Which of the block's columns count."""
        settings, start = self.settings, self.start(index)
        first = settings.cut.first_row(self.rows) + start
        padded = settings.vocabulary < self.rows * settings.cut.vocabulary_ways
        return Columns(
            index * self.blocks.columns - start if self.overlapping else None,
            settings.vocabulary - first if padded else None,
        )

    def block(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Its part of the kernel in full width, in `dtype`."""
        axis = self.settings.vocabulary_axis
        part = jax.lax.dynamic_slice_in_dim(self.kernel, self.start(index), self.blocks.columns, axis)
        if part.dtype != dtype and not self.blocks.single:
            # Times one, which XLA does not know: it would round the whole kernel before the loop, and keep that.
            part = part * (index >= 0).astype(part.dtype)
        return self.settings.cut.gathered(part.astype(dtype))

    def written(self, gradient: jax.Array, of_block: jax.Array, index: jax.Array) -> jax.Array:
        """The kernel's gradient with that of block `index` in its place.

        Args:
            of_block: float32 [width, columns], of this device's tokens.
        """
        axis, start = self.settings.vocabulary_axis, self.start(index)
        new = self.settings.cut.handed_back(of_block).astype(gradient.dtype)
        if axis == 0:
            # Turned around in memory once, and not within the products, which on a CPU take half as long again then.
            new = jax.lax.optimization_barrier(new).T
        if self.overlapping:  # zeros in the columns of the block before
            new = new + jax.lax.dynamic_slice_in_dim(gradient, start, self.blocks.columns, axis)
        return jax.lax.dynamic_update_slice_in_dim(gradient, new, start, axis)


def forward(
    settings: Settings, keep: bool, hidden: jax.Array, kernel: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Nats and log-sum-exp of each token, float32, and, if `keep` and they are one block, its logits [*tokens, rows]."""
    blocks, parts = _cut(settings, hidden, kernel)
    keep = keep and blocks.single
    pieces = _pieces(hidden.reshape(targets.size, -1), blocks)
    wanted = _pieces(_local(settings, parts, targets), blocks, -1)

    def over_columns(state, index):
        block, columns, start = parts.block(index, hidden.dtype), parts.columns(index), parts.start(index)

        def over_tokens(_, piece):
            x, target, (peak, total, score) = piece
            logits = block_logits(x, block, settings.vocabulary_axis, settings.soft_cap)
            mask = columns.mask(logits.shape)
            visible = counted(logits, mask, -jnp.inf)
            higher = jnp.maximum(peak, jnp.max(visible, axis=1))
            total = total * jnp.exp(peak - higher) + jnp.sum(jnp.exp(visible - higher[:, None]), axis=1)
            score = score + jnp.sum(jnp.where(picked(logits, target - start, mask), logits, 0.0), axis=1)
            return None, ((higher, total, score), logits if keep else None)

        _, (state, logits) = jax.lax.scan(over_tokens, None, (pieces, wanted, state), unroll=blocks.token_blocks == 1)
        return state, logits

    zeros = jnp.zeros(wanted.shape, jnp.float32)
    indices = jnp.arange(blocks.column_blocks)
    state = (zeros + _LOWEST, zeros, zeros)
    (peak, total, score), logits = jax.lax.scan(over_columns, state, indices, unroll=blocks.column_blocks == 1)

    highest = settings.cut.largest_over_vocabulary(peak)
    total = settings.cut.summed_over_vocabulary(total * jnp.exp(peak - highest))
    log_total = highest + jnp.log(total)
    nats = log_total - settings.cut.summed_over_vocabulary(score)
    nats, log_total = (_whole(x, targets.shape) for x in (nats, log_total))
    return nats, log_total, logits.reshape(*targets.shape, parts.rows) if keep else None


def backward(
    settings: Settings,
    hidden: jax.Array,
    kernel: jax.Array,
    targets: jax.Array,
    log_total: jax.Array,
    logits: jax.Array | None,
    of_nats: jax.Array,
    of_log_total: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Gradients of hidden and kernel in their dtypes, from `forward`'s log_total and logits and the cotangents."""
    blocks, parts = _cut(settings, hidden, kernel)
    axis, width = settings.vocabulary_axis, hidden.shape[-1]
    kept = None if logits is None else logits.reshape(1, targets.size, parts.rows)
    pieces = _pieces(hidden.reshape(targets.size, width), blocks)
    of_tokens = (
        pieces,
        _pieces(_local(settings, parts, targets), blocks, -1),
        *(_pieces(x.reshape(-1), blocks) for x in (log_total, of_nats, of_log_total)),
        kept,
    )

    def over_columns(carried, index):
        of_hidden, of_kernel = carried
        block, columns, start = parts.block(index, hidden.dtype), parts.columns(index), parts.start(index)

        def over_tokens(of_block, piece):
            (x, target, log_total, *cotangents, scores), of_x = piece
            if scores is None:
                scores = block_logits(x, block, axis, settings.soft_cap)
            mask = columns.mask(scores.shape)
            gradient = gradient_of_product(scores, target - start, log_total, *cotangents, mask, settings.soft_cap)
            gradient = gradient.astype(hidden.dtype)
            return of_block + product_over_tokens(x, gradient), of_x + product(gradient, block, 1, axis)

        zeros = jnp.zeros((width, blocks.columns), jnp.float32)
        of_block, of_hidden = jax.lax.scan(over_tokens, zeros, (of_tokens, of_hidden), unroll=blocks.token_blocks == 1)
        return (of_hidden, parts.written(of_kernel, of_block, index)), None

    zeros = jnp.zeros(pieces.shape, jnp.float32), jnp.zeros_like(kernel)
    indices = jnp.arange(blocks.column_blocks)
    (of_hidden, of_kernel), _ = jax.lax.scan(over_columns, zeros, indices, unroll=blocks.column_blocks == 1)
    of_hidden = settings.cut.summed_over_vocabulary(of_hidden)
    return _whole(of_hidden, hidden.shape).astype(hidden.dtype), of_kernel


def _cut(settings: Settings, hidden: jax.Array, kernel: jax.Array) -> tuple[Blocks, _KernelBlocks]:
    tokens = hidden.size // hidden.shape[-1]
    blocks = cut_into_blocks(tokens, kernel.shape[settings.vocabulary_axis], settings.limits)
    return blocks, _KernelBlocks(kernel, settings, blocks)


def _local(settings: Settings, parts: _KernelBlocks, targets: jax.Array) -> jax.Array:
    """[tokens]: targets counted from this device's first row."""
    return targets.reshape(-1).astype(jnp.int32) - settings.cut.first_row(parts.rows)


def _pieces(x: jax.Array, blocks: Blocks, fill: int = 0) -> jax.Array:
    """[tokens, ...] -> [token blocks, tokens of each, ...]; the last is filled up, whose cotangents are then 0."""
    missing = blocks.tokens * blocks.token_blocks - len(x)
    if missing:
        x = jnp.pad(x, [(0, missing), *((0, 0),) * (x.ndim - 1)], constant_values=fill)
    return x.reshape(blocks.token_blocks, blocks.tokens, *x.shape[1:])


def _whole(pieces: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`_pieces` undone: an array of `shape`, whose dimensions but those of `pieces` behind the second are tokens'."""
    flat = pieces.reshape(-1, *pieces.shape[2:])
    tokens = 1
    for size in shape[: len(shape) - pieces.ndim + 2]:
        tokens *= size
    return flat[:tokens].reshape(shape)
