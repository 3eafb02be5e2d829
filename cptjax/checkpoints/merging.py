"""Checkpoints combined into one, tensor by tensor: as many as are merged are in memory at a time, each one tensor.

    average          sum(w_i * x_i) / sum(w_i)                      model soups, arXiv 2203.05482
    linear           (1 - t) * a + t * b                            WiSE-FT, arXiv 2109.01903
    spherical        along the arc from a to b, tensor by tensor    slerp: Shoemake, SIGGRAPH 1985
    task_arithmetic  base + sum(w_i * (x_i - base))                 arXiv 2212.04089, section 2

All sums are float64 and rounded once, to float32; the order of the tensors in a file is not that of an export.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from etils import epath

from cptjax.checkpoints import exporting
from cptjax.checkpoints.exporting import EXPORT_DTYPES, check_dtype
from cptjax.checkpoints.safetensors import TensorSpec
from cptjax.checkpoints.source import OpenedCheckpoint
from cptjax.checkpoints.tensor_reader import TensorReader
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.families.family import correspondences, first_parts
from cptjax.watching import Watch, unwatched

_BLOCK = 1 << 20  # numbers of a tensor that are widened to float64 at a time
_PARALLEL = 1e-6  # sine of an angle below which there is no arc to follow

# The flat tensors of all checkpoints -> what each is multiplied with before they are added.
Coefficients = Callable[[Sequence[np.ndarray]], Sequence[float]]


def average(weights: Sequence[float]) -> Coefficients:
    """The weighted mean; `weights` need not add up to one."""
    total = math.fsum(weights)
    return lambda tensors: [weight / total for weight in weights]


def linear(fraction: float) -> Coefficients:
    """On the line through two checkpoints: the first at 0, the second at 1; beyond either outside."""
    return lambda tensors: [1 - fraction, fraction]


def spherical(fraction: float) -> Coefficients:
    """On the arc from one tensor to the other, both as vectors from zero; the line where they point the same (or opposite) way."""

    def coefficients(tensors: Sequence[np.ndarray]) -> Sequence[float]:
        first, second = tensors
        product, of_first, of_second = (_inner(*pair) for pair in ((first, second), (first, first), (second, second)))
        if not of_first or not of_second:
            return [1 - fraction, fraction]
        angle = math.acos(max(-1.0, min(1.0, product / math.sqrt(of_first) / math.sqrt(of_second))))
        if math.sin(angle) < _PARALLEL:
            return [1 - fraction, fraction]
        return [math.sin((1 - fraction) * angle) / math.sin(angle), math.sin(fraction * angle) / math.sin(angle)]

    return coefficients


def task_arithmetic(scales: Sequence[float]) -> Coefficients:
    """The first checkpoint is the base, to which the scaled differences of the others from it are added."""
    return lambda tensors: [1 - math.fsum(scales), *scales]


def combined(tensors: Sequence[np.ndarray], coefficients: Sequence[float]) -> np.ndarray:
    """The sum of flat tensors times their coefficients, in float64, as float32."""
    result = np.empty(tensors[0].size, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found by whoever reads and writes
        for start in range(0, result.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            total = tensors[0][block].astype(np.float64) * coefficients[0]
            for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
                total += tensor[block].astype(np.float64) * coefficient
            result[block] = total
    return result


def _inner(first: np.ndarray, second: np.ndarray) -> float:
    blocks = (slice(start, start + _BLOCK) for start in range(0, first.size, _BLOCK))
    return math.fsum(float(first[b].astype(np.float64) @ second[b].astype(np.float64)) for b in blocks)


def write_merged(
    sources: Sequence[OpenedCheckpoint],
    coefficients: Coefficients,
    destination: epath.PathLike,
    dtype: str,
    shard_bytes: int,
    tokenizer_config: dict | None = None,
    watch: Watch = unwatched,
) -> None:
    """Writes the Hugging Face folder `destination`; config.json and tokenizer are those of the first source.

    Of a Hugging Face folder one tensor is read at a time; of a run, whose checkpoint holds all layers' tensors of a weight
    as one array, one such array.

    Raises:
        ConfigurationError: the models differ, the dtype is unknown, or there are several processes.
        CptjaxError: a source is damaged, a value is not finite in a source or in `dtype`, or the disk refuses.
    """
    check_dtype(dtype)
    if jax.process_count() > 1:
        raise ConfigurationError(f"checkpoints are merged by one process; this is one of {jax.process_count()}.")
    refuse_other_models(sources)
    first = sources[0]
    config = first.family.write_config(first.config, first.original_config)
    config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    entries = correspondences(first.family, first.config.unpadded())
    order = first_parts(entries)
    shapes = {theirs: entry.their_shape for theirs, entry, _ in order}
    readers = [TensorReader(source) for source in sources]

    def merged() -> Iterator[np.ndarray]:
        for theirs, entry, index in watch(order, len(order), "merging tensors"):
            tensors = [reader.read(entry, index) for reader in readers]
            yield combined(tensors, coefficients(tensors)).reshape(shapes[theirs])

    specs = {theirs: TensorSpec(EXPORT_DTYPES[dtype], shape) for theirs, shape in shapes.items()}
    try:
        exporting.write_folder(
            epath.Path(destination), config, specs, merged(), first.model_folder, tokenizer_config, shard_bytes
        )
    except OSError as error:
        raise CptjaxError(f"could not write {destination}: {error}. Nothing stands there; run it again.") from error


def refuse_other_models(sources: Sequence[OpenedCheckpoint]) -> None:
    """All must be of one family and one config: otherwise their tensors do not correspond.

    Raises:
        ConfigurationError: naming the first field that differs.
    """
    first, model = sources[0], sources[0].config.unpadded()
    for other in sources[1:]:
        told = [("model_type", first.family.model_type, other.family.model_type)]
        for field in dataclasses.fields(first.config):
            told.append((field.name, getattr(model, field.name), getattr(other.config.unpadded(), field.name)))
        for name, one, another in told:
            if one != another:
                raise ConfigurationError(
                    f"'{first.path}' and '{other.path}' are different models: {name} is {one!r} of the first and {another!r} "
                    "of the other.\n  Only checkpoints of one architecture and size can be merged."
                )
