"""How tensors of a Hugging Face checkpoint correspond to our weights: axes permuted, merged, and several in one."""

import dataclasses
import math

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tensor of theirs is ours with its axes permuted and merged. Both directions follow from this one line.

    Attributes:
        order: our axes in their order.
        groups: how many of these are merged into each axis of theirs.
        joint: where one tensor of theirs holds several of ours: the axis, before merging, along which they stand one
            after another.
        fresh: ours lack that axis, and each is one step along it.
    """

    order: tuple[int, ...]
    groups: tuple[int, ...]
    joint: int | None = None
    fresh: bool = False

    def their_shape(self, *shapes: Shape) -> Shape:
        """Their shape for ours: for that of each, where there are several."""
        sizes = iter(self._whole(*shapes))
        return tuple(math.prod(next(sizes) for _ in range(count)) for count in self.groups)

    def to_ours(self, tensor: np.ndarray, *shapes: Shape, part: int = 0) -> np.ndarray:
        """Of the weights with our `shapes` in their tensor, number `part`: a view, nothing is copied."""
        array = tensor.reshape(self._whole(*shapes))
        if self.joint is not None:
            start = sum(self._ordered(shape)[self.joint] for shape in shapes[:part])
            stop = start + self._ordered(shapes[part])[self.joint]
            array = array[(slice(None),) * self.joint + (start if self.fresh else slice(start, stop),)]
        return array.transpose(np.argsort(self.order))

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        """Our arrays in their one tensor."""
        shape = self.their_shape(*(array.shape for array in arrays))
        parts = [array.transpose(self.order).reshape(self._ordered(array.shape)) for array in arrays]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=self.joint)).reshape(shape)

    def _ordered(self, shape: Shape) -> list[int]:
        """One of ours in their order, not yet merged."""
        sizes = [shape[axis] for axis in self.order]
        if self.fresh:
            sizes.insert(self.joint, 1)
        return sizes

    def _whole(self, *shapes: Shape) -> list[int]:
        """All of ours in one, not yet merged."""
        sizes = self._ordered(shapes[0])
        if self.joint is not None:
            sizes[self.joint] = sum(self._ordered(shape)[self.joint] for shape in shapes)
        return sizes


SAME_VECTOR = Layout((0,), (1,))
SAME_MATRIX = Layout((0, 1), (1, 1))
TRANSPOSED = Layout((1, 0), (1, 1))
HEADS_FIRST = Layout((1, 2, 0), (2, 1))  # ours [hidden, heads, head_dim], theirs [heads * head_dim, hidden]
HEADS_LAST = Layout((2, 0, 1), (1, 2))  # ours [heads, head_dim, hidden], theirs [hidden, heads * head_dim]
HEADS_VECTOR = Layout((0, 1), (2,))  # ours [heads, head_dim], theirs [heads * head_dim]

# One of ours, or those of ours that stand in one tensor of theirs -> its name with `{i}` for the layer, and how.
Tensors = dict[str | tuple[str, ...], tuple[str, Layout]]


def norm(ours: str, theirs: str, bias: bool = False) -> Tensors:
    """A norm's scale, and its bias if it has one."""
    scale: Tensors = {f"{ours}.scale": (f"{theirs}.weight", SAME_VECTOR)}
    return scale | {f"{ours}.bias": (f"{theirs}.bias", SAME_VECTOR)} if bias else scale


def linear(ours: str, theirs: str, kernel: Layout = TRANSPOSED, bias: Layout = SAME_VECTOR) -> Tensors:
    """A projection's kernel and bias."""
    return {f"{ours}.kernel": (f"{theirs}.weight", kernel), f"{ours}.bias": (f"{theirs}.bias", bias)}


def fused(ours: tuple[str, ...], theirs: str, kernel: Layout, bias: Layout | None = None) -> Tensors:
    """Several projections of ours in one of theirs."""
    tensors: Tensors = {tuple(f"{name}.kernel" for name in ours): (f"{theirs}.weight", kernel)}
    return tensors | {tuple(f"{name}.bias" for name in ours): (f"{theirs}.bias", bias)} if bias else tensors


QUERY_KEY_VALUE = ("layers.attention.query", "layers.attention.key", "layers.attention.value")
