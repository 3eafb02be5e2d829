"""A checkpoint with the rows of another vocabulary, written tensor by tensor: all else is as it was, bit for bit."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from cptjax.checkpoints import exporting
from cptjax.checkpoints.safetensors import TensorSpec
from cptjax.checkpoints.source import OpenedCheckpoint
from cptjax.checkpoints.tensor_reader import TensorReader
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.families.family import Correspondence, correspondences, first_parts
from cptjax.watching import Watch, unwatched

# (old rows [old, width], the number of the table: 0 the embedding, then the head) -> new rows [new, width], of the same dtype.
MakeRows = Callable[[np.ndarray, int], np.ndarray]
_AXIS = "vocabulary"  # the logical axis of a weight that has a row, or a column, for each token


def changed_config(source: OpenedCheckpoint, vocabulary: int) -> dict[str, Any]:
    """The source's config.json with so many rows and, of a run, the dtype that it is written in; all else as it was.

    Raises:
        ConfigurationError: the family means something else by it.
    """
    model = dataclasses.replace(source.config.unpadded(), vocabulary=vocabulary)
    config = source.original_config | {source.family.renamed["vocabulary"]: vocabulary}
    if source.store is not None:
        config["dtype" if "dtype" in config else "torch_dtype"] = "float32"
    if source.family.read_config(config) != model:
        raise ConfigurationError(f"{source.model_folder / 'config.json'} with {vocabulary:,} rows is another model.")
    return config


def write_changed(
    source: OpenedCheckpoint,
    vocabulary: int,
    make_rows: MakeRows,
    config: dict[str, Any],
    destination: epath.PathLike,
    tokenizer: epath.PathLike,
    tokenizer_config: dict[str, Any] | None,
    shard_bytes: int,
    watch: Watch = unwatched,
) -> None:
    """Writes the Hugging Face folder `destination`: the weights of `source` with `vocabulary` rows, in its dtypes.

    One tensor is in memory at a time (of a run, one array of its checkpoint), and a table beside the new one.

    Args:
        config: config.json (`changed_config`); tokenizer: the folder, or file, whose files go with it.
        tokenizer_config: written as tokenizer_config.json, for a tokenizer that has none.

    Raises:
        CptjaxError: the source is damaged, a value is not finite in it or as a new row, or the disk refuses.
        ConfigurationError: there are several processes.
    """
    if jax.process_count() > 1:
        raise ConfigurationError(f"one process changes a vocabulary; this is one of {jax.process_count()}.")
    old = source.config.unpadded()
    before = first_parts(correspondences(source.family, old))
    after = first_parts(correspondences(source.family, dataclasses.replace(old, vocabulary=vocabulary)))
    reader = TensorReader(source)
    specs = {theirs: TensorSpec(reader.dtype(theirs), entry.their_shape) for theirs, entry, _ in after}
    numbers = {theirs: n for n, theirs in enumerate(t for t, entry, _ in before if _AXIS in entry.spec.axes)}

    def tensors() -> Iterator[np.ndarray]:
        for (theirs, entry, index), (_, new, _) in zip(before, after, strict=True):
            values = reader.read(entry, index).reshape(entry.their_shape)
            if source.store is not None:
                values = values.copy()  # what is still being written must not keep all layers while the next are read
            if theirs in numbers:
                with np.errstate(over="ignore"):
                    values = _changed(values, entry, new, lambda rows, n=numbers[theirs]: make_rows(rows, n))
                if not np.isfinite(values).all():
                    raise CptjaxError(f"new rows of {theirs!r} are not finite in {values.dtype}; nothing was written.")
            yield values

    try:
        exporting.write_folder(
            epath.Path(destination),
            config,
            specs,
            watch(tensors(), len(specs), "writing tensors"),
            tokenizer,
            tokenizer_config,
            shard_bytes,
        )
    except OSError as error:
        raise CptjaxError(f"could not write {destination}: {error}. Nothing stands there; run it again.") from error


def _changed(
    values: np.ndarray, old: Correspondence, new: Correspondence, make: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """A tensor of theirs with its rows made new, wherever in it the vocabulary's axis is."""
    axis = old.spec.axes.index(_AXIS)
    ours = np.moveaxis(old.to_ours(values), axis, 0)
    rows = make(ours.reshape(ours.shape[0], -1))
    return new.layout.to_theirs(np.moveaxis(rows.reshape(-1, *ours.shape[1:]), 0, axis))
