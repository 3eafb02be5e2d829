"""Weights written as a Hugging Face folder that transformers loads: aside, tensor by tensor, and renamed at the end."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import jax
import ml_dtypes
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.checkpoints.hugging_face import tokenizer_files
from cptjax.checkpoints.safetensors import TensorSpec
from cptjax.checkpoints.safetensors_writing import write_tensors
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Correspondence, Family, correspondences, first_parts
from cptjax.models.model import Params
from cptjax.sharding.mesh import in_host_memory
from cptjax.watching import Watch, unwatched

EXPORT_DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


def check_dtype(dtype: str) -> None:
    """Refuses a dtype in which weights are not written.

    Raises:
        ConfigurationError: with those that there are.
    """
    if dtype not in EXPORT_DTYPES:
        raise ConfigurationError(f"a checkpoint cannot be exported as {dtype!r}; choose {', '.join(EXPORT_DTYPES)}.")


def export_folder(
    params: Params,
    config: DecoderConfig,
    family: Family,
    original_config: dict[str, Any] | None,
    tokenizer_folder: epath.PathLike | None,
    destination: epath.PathLike,
    dtype: str = "float32",
    shard_bytes: int = 5_000_000_000,
    tokenizer_config: dict[str, Any] | None = None,
    watch: Watch = unwatched,
) -> None:
    """Writes a folder that transformers loads: config.json, safetensors without padding, and the tokenizer's files as they are.

    Everything is written under `<destination>.partial` and renamed at the end. All processes call it; the first writes.

    Args:
        original_config: the config.json of the checkpoint these parameters came from, whose further fields are kept.
        tokenizer_config: written as tokenizer_config.json, for a folder that has none.
        watch: what sees the tensors being written.
        tokenizer_folder: where the tokenizer's files lie, or its one file; None to carry none.

    Raises:
        ConfigurationError: the destination exists, the dtype is unknown, or the family cannot express the config.
        CptjaxError: a weight is not finite in `dtype`, or the disk refuses.
    """
    check_dtype(dtype)
    destination = epath.Path(destination)
    if destination.exists():
        raise ConfigurationError(
            f"{destination} exists already; an export never overwrites. Name another or remove it."
        )
    written = family.write_config(config, original_config)
    written["dtype" if "dtype" in written else "torch_dtype"] = dtype

    order = sorted(
        first_parts(correspondences(family, config.unpadded())),
        key=lambda item: (item[1].place(item[2])[:1], item[0]),  # what is in no layer first
    )
    specs = {theirs: TensorSpec(EXPORT_DTYPES[dtype], entry.their_shape) for theirs, entry, _ in order}
    # The order is watched, not the tensors: whoever watches holds on to what is under way.
    order = watch(order, len(order), "writing tensors") if jax.process_index() == 0 else order
    tensors = (_their_tensor(params, entry, index) for _, entry, index in order)
    if jax.process_index() != 0:
        for _ in tensors:  # the gathers inside need every process
            pass
        return
    try:
        write_folder(destination, written, specs, tensors, tokenizer_folder, tokenizer_config, shard_bytes)
    except OSError as error:
        raise CptjaxError(
            f"could not export to {destination}: {error}. Nothing stands there; run the export again."
        ) from error


def write_folder(
    destination: epath.Path,
    config: dict[str, Any],
    specs: dict[str, TensorSpec],
    tensors: Iterator[np.ndarray],
    tokenizer_folder: epath.PathLike | None,
    tokenizer_config: dict[str, Any] | None,
    shard_bytes: int,
) -> None:
    """Writes config.json, `tensors` in the order of `specs` and the tokenizer's files, aside and then renamed.

    Raises:
        CptjaxError: a value is not finite in the dtype that `specs` gives it.
    """
    aside = destination.parent / f"{destination.name}.partial"
    if aside.exists():
        aside.rmtree()  # left by an export that was killed
    aside.mkdir(parents=True)
    try:
        for file in [] if tokenizer_folder is None else tokenizer_files(tokenizer_folder):
            file.copy(aside / file.name)
        if tokenizer_config is not None:
            (aside / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
        write_tensors(aside, specs, tensors, shard_bytes, only_finite=True)
        # Last: where renaming a folder is not atomic (gs://), one without a config.json is not taken for a checkpoint.
        (aside / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        aside.rename(destination)
    except BaseException:
        aside.rmtree(missing_ok=True)
        raise


def _their_tensor(params: Params, entry: Correspondence, index: int) -> np.ndarray:
    """One tensor of the export in float32, gathered from all devices and processes, without rows of padding."""
    parts = (_gathered(params[ours], entry.place(index)) for ours in entry.together)
    cut = (part[tuple(map(slice, shape))] for part, shape in zip(parts, entry.together.values(), strict=True))
    return entry.layout.to_theirs(*cut)


def _gathered(array: jax.Array, place: tuple[int, ...]) -> np.ndarray:
    """A weight, or that of one layer (and expert)."""
    if isinstance(array, jax.Array) and in_host_memory(array.sharding.device_set):
        return _from_own_memory(array, place)
    if isinstance(array, jax.Array) and isinstance(array.sharding, NamedSharding):
        return np.asarray(_gather(array.sharding.mesh)(array, place).addressable_data(0))
    return np.asarray(array[place])


def _from_own_memory(array: jax.Array, chosen: tuple[int, ...]) -> np.ndarray:
    """The array, or what stands at one place of the stack, from shards in this process's memory: one copy at most.

    A gather would leave one on every virtual device.
    """
    shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    if len(shards) == 1:
        return np.asarray(shards[0].data)[chosen]
    whole = np.empty(array.shape[len(chosen) :], array.dtype)
    for shard in shards:  # the axes of layers and of experts are never sharded
        whole[shard.index[len(chosen) :]] = np.asarray(shard.data)[chosen]
    return whole


@functools.lru_cache(maxsize=8)
def _gather(mesh: Mesh) -> Any:
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda array, place: array[place], out_shardings=replicated)
