"""Hugging Face folders in and out: safetensors only, tensor by tensor, straight to and from sharded parameters."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.checkpoints.ahead import one_ahead
from cptjax.checkpoints.parts import Index, of_one, parts_of, read_parts, sharding_by_rows
from cptjax.checkpoints.safetensors import CODES, SafetensorsFile, TensorSpec, write_tensors
from cptjax.checkpoints.tiles import same_bits
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Correspondence, Family, correspondences, first_parts
from cptjax.models.families.registry import family_of
from cptjax.models.model import Params, abstract_weights
from cptjax.sharding.rules import sharding_of
from cptjax.watching import Watch, unwatched

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WEIGHT_DTYPES = ("F32", "BF16", "F16", "F64")
EXPORT_DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "chat_template.*",
)
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json")


@dataclasses.dataclass(frozen=True)
class HuggingFaceFolder:
    """An opened checkpoint: its config understood, its tensors all there and of the right shapes, none read yet."""

    path: epath.Path
    config: dict[str, Any]
    family: Family
    decoder_config: DecoderConfig
    tensors: dict[str, SafetensorsFile]


def open_folder(path: epath.PathLike) -> HuggingFaceFolder:
    """Opens a folder with `config.json` and safetensors (one file, or shards with an index).

    Raises:
        ConfigurationError: it is not a checkpoint's folder, or of an unsupported architecture.
        CptjaxError: it is one, but damaged: a file or tensor is missing, unexpected, truncated or of the wrong shape.
    """
    path = epath.Path(path)
    if not path.is_dir():
        instead = f" (it is a file; name the folder it is in: {path.parent})" if path.exists() else ""
        raise ConfigurationError(
            f"there is no folder {path}{instead}: a Hugging Face checkpoint was to be read from it."
        )
    source = path / "config.json"
    if not source.exists():
        raise ConfigurationError(f"{path} is not a Hugging Face checkpoint: it holds no config.json.")
    config = _read_json(source)
    family = family_of(config, str(source))
    decoder_config = family.read_config(config, str(source))
    tensors = _open_tensors(path)
    if family.prefix and not any(name.startswith(family.prefix) for name in tensors):
        family = family.unprefixed()
    _check_tensors(path, tensors, family, decoder_config)
    return HuggingFaceFolder(path, config, family, decoder_config, tensors)


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise CptjaxError(f"{path} is not readable JSON: {error}.") from None
    if not isinstance(data, dict):
        raise CptjaxError(f"{path} should hold a JSON object, not a {type(data).__name__}.")
    return data


def _open_tensors(path: epath.Path) -> dict[str, SafetensorsFile]:
    """Each tensor's name -> the file that holds it."""
    if (path / SINGLE).exists():
        file = SafetensorsFile(path / SINGLE)
        return dict.fromkeys(file.specs, file)
    if not (path / INDEX).exists():
        pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
        if pickles:
            raise ConfigurationError(
                f"{path} holds its weights only as pickles ({pickles[0]}), which can run any code when opened; "
                "cptjax reads safetensors only.\n  Convert it where you trust it: load it with transformers and call "
                "save_pretrained(folder, safe_serialization=True)."
            )
        others = sorted(file.name for file in path.glob("*.safetensors"))
        if any(name.startswith("adapter_") for name in others):
            raise ConfigurationError(
                f"{path} holds an adapter ({others[0]}) and no model: neither {SINGLE} nor {INDEX}.\n"
                "  Put it into its base first (peft's merge_and_unload), and save that."
            )
        if others:
            raise ConfigurationError(
                f"{path} holds {others[0]}, but neither {SINGLE} nor {INDEX}, which says where each tensor is.\n"
                "  Download or copy the folder again, with its index."
            )
        raise ConfigurationError(f"{path} holds no weights: neither {SINGLE} nor {INDEX}.")
    weight_map = _read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CptjaxError(f"{path / INDEX} has no weight_map.")
    files = {}
    for name in dict.fromkeys(weight_map.values()):
        if not isinstance(name, str) or "/" in name or "\\" in name or not (path / name).exists():
            tensor = next(tensor for tensor, file in weight_map.items() if file == name)
            raise CptjaxError(
                f"{path / INDEX} names the shard {name!r}, which is not in the folder; tensor {tensor!r} should be in it.\n"
                "  Download or copy it again."
            )
        files[name] = SafetensorsFile(path / name)
    for tensor, name in weight_map.items():
        if tensor not in files[name].specs:
            raise CptjaxError(f"{path / INDEX} says that tensor {tensor!r} is in {name}, but it is not.")
    for name, file in files.items():
        for tensor in file.specs:
            if weight_map.get(tensor) != name:
                raise CptjaxError(f"{path / name} holds tensor {tensor!r}, which {INDEX} does not place there.")
    return {tensor: files[name] for tensor, name in weight_map.items()}


def _check_tensors(
    path: epath.Path,
    tensors: dict[str, SafetensorsFile],
    family: Family,
    config: DecoderConfig,
) -> None:
    """Every tensor that the config calls for is there, with its shape, and no other."""
    expected = correspondences(family, config)
    shapes = {name: entry.their_shape for entry in expected.values() for name in entry.names}
    head = family.tensors["head.kernel"][0]
    if config.tied_embeddings and head in tensors:
        shapes[head] = expected["embedding.table"].their_shape
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise CptjaxError(
            f"{path} lacks {len(missing)} tensor(s) that its config.json calls for, first {missing[0]!r}."
        )
    for name, file in tensors.items():
        if name.endswith(family.derived):
            continue
        if name not in shapes:
            raise CptjaxError(f"{file.path} holds the tensor {name!r}, for which its config.json gives no use.")
        if file.specs[name].shape != shapes[name]:
            raise CptjaxError(
                f"{file.path}: tensor {name!r} has shape {file.specs[name].shape}; config.json makes it {shapes[name]}."
            )
        if CODES[file.specs[name].dtype] not in WEIGHT_DTYPES:
            raise CptjaxError(
                f"{file.path}: tensor {name!r} has dtype {CODES[file.specs[name].dtype]} (quantised?); "
                f"cptjax reads weights in {', '.join(WEIGHT_DTYPES)}."
            )


def load_parameters(folder: HuggingFaceFolder, mesh: Mesh, config: DecoderConfig | None = None) -> Params:
    """The folder's weights in float32, each where it lives on `mesh`.

    Each process reads only its share, one of the files' tensors (of a layer, of an expert) at a time and the next one while
    the devices take it; a stack is filled on the devices.

    Args:
        config: the folder's own, which may have rows of padding; None: without.

    Raises:
        CptjaxError: a weight is not finite, or a tied checkpoint's own head differs from its embedding.
    """
    entries = correspondences(folder.family, folder.decoder_config)
    shapes = {name: spec.shape for name, spec in abstract_weights(config or folder.decoder_config).items()}
    places = {name: sharding_of(mesh, entry.spec.axes, shapes[name]) for name, entry in entries.items()}
    whole = {name: shapes[name][len(entry.spec.counts) :] for name, entry in entries.items()}  # of one layer and expert
    as_read = {name: sharding_by_rows(entry, places[name], whole[name]) for name, entry in entries.items()}
    parts, devices = {}, {}
    for name in entries:
        parts[name], devices[name] = parts_of(as_read[name], whole[name])
    check_tied_head(folder, parts["embedding.table"])

    def read(tensor: tuple[str, Correspondence, int]) -> tuple[tuple[int, ...], dict[str, list[np.ndarray]]]:
        theirs, first, index = tensor
        wanted = {name: (entries[name], parts[name]) for name in first.together}
        return first.place(index), read_parts(folder.tensors[theirs], theirs, wanted, whole)

    tensors = first_parts(entries)
    # Each stack is filled with zeros while the one before it is filled with layers.
    stacked_names = (n for _, first, index in tensors if first.stacked and index == 0 for n in first.together)
    stacks = (_stacking(shapes[n], places[n])[0]() for n in stacked_names)
    if jax.process_count() == 1:  # several must start all that they compute in the same order
        stacks = one_ahead(stacks)
    params: Params = {}
    for place, found in one_ahead(map(read, tensors)):
        for name, arrays in found.items():
            stacked = entries[name].stacked
            # What goes on is copied on its way; what stays must be the device's own, to be updated in place.
            passing = stacked or as_read[name] != places[name]
            puts = [jax.device_put(arrays[n], device, may_alias=passing) for device, n in devices[name].items()]
            one = jax.make_array_from_single_device_arrays(whole[name], as_read[name], puts)
            if stacked:
                stack = params[name] if name in params else next(stacks)
                params[name] = _stacking(shapes[name], places[name])[1](stack, one, place)
            else:
                params[name] = _moved(places[name])(one) if passing else one
        # The next tensor but one is not read while this one is under way.
        jax.block_until_ready([params[name] for name in found])
        del found, arrays, puts, one
    return params


@functools.lru_cache(maxsize=8)
def _moved(sharding: NamedSharding) -> Any:
    return jax.jit(lambda array: array, out_shardings=sharding)


@functools.lru_cache(maxsize=64)
def _stacking(shape: tuple[int, ...], sharding: NamedSharding) -> tuple[Any, Any]:
    """Compiled: a stack of zeros, and the insertion of what stands at one place (of the first axes) into it in place."""
    empty = jax.jit(lambda: jnp.zeros(shape, jnp.float32), out_shardings=sharding)

    def insert(stack: jax.Array, one: jax.Array, place: tuple[int, ...]) -> jax.Array:
        # It may come cut otherwise: as it was read.
        one = jax.lax.with_sharding_constraint(one, of_one(sharding, len(place)))
        start = (*place, *(0,) * one.ndim)
        return jax.lax.dynamic_update_slice(stack, one.reshape(*(1,) * len(place), *one.shape), start)

    return empty, jax.jit(insert, donate_argnums=0, out_shardings=sharding)


def check_tied_head(folder: HuggingFaceFolder, parts: Sequence[Index] = ((slice(None), slice(None)),)) -> None:
    """A tied checkpoint may hold its head besides, if it is the embedding's equal.

    Args:
        parts: of the embedding, those that are looked at.

    Raises:
        CptjaxError: it differs.
    """
    table, head = (folder.family.tensors[name][0] for name in ("embedding.table", "head.kernel"))
    if not folder.decoder_config.tied_embeddings or head not in folder.tensors:
        return
    files = [(folder.tensors[name], name) for name in (table, head)]
    pairs = ([file.read(name, rows)[:, columns] for file, name in files] for rows, columns in parts)
    if not all(same_bits(*pair) for pair in pairs):
        raise CptjaxError(
            f"{folder.path}: config.json ties the head to the embedding, but {head!r} differs from {table!r}.\n"
            "  If the head is its own, set tie_word_embeddings to false; if it is a leftover, remove it."
        )


def identity(folder: HuggingFaceFolder) -> str:
    """sha256 (hex) of config and tensors: equal for equal models however their files are cut. Reads every byte once."""
    digest = hashlib.sha256(json.dumps(folder.config, sort_keys=True).encode())
    for name in sorted(folder.tensors):
        file = folder.tensors[name]
        spec = file.specs[name]
        digest.update(f"\n{name} {CODES[spec.dtype]} {list(spec.shape)}\n".encode())
        for block in file.blocks(name):
            digest.update(block)
    return digest.hexdigest()


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


def tokenizer_files(path: epath.PathLike) -> list[epath.Path]:
    """The files of a folder that make up its tokenizer (and how to generate with it).

    Of a tokenizer given as a file: that file, and what stands beside it and says how it is used.
    """
    path = epath.Path(path)
    if not path.is_dir():
        return [path, *(path.parent / name for name in TOKENIZER_SETTINGS if (path.parent / name).exists())]
    return [file for pattern in TOKENIZER_FILES for file in sorted(path.glob(pattern))]


def _their_tensor(params: Params, entry: Correspondence, index: int) -> np.ndarray:
    """One tensor of the export in float32, gathered from all devices and processes, without rows of padding."""
    parts = (_gathered(params[ours], entry.place(index)) for ours in entry.together)
    cut = (part[tuple(map(slice, shape))] for part, shape in zip(parts, entry.together.values(), strict=True))
    return entry.layout.to_theirs(*cut)


def _gathered(array: jax.Array, place: tuple[int, ...]) -> np.ndarray:
    """A weight, or that of one layer (and expert)."""
    if isinstance(array, jax.Array) and array.is_fully_addressable and _on_cpu(array):
        return _from_own_memory(array, place)
    if isinstance(array, jax.Array) and isinstance(array.sharding, NamedSharding):
        return np.asarray(_gather(array.sharding.mesh)(array, place).addressable_data(0))
    return np.asarray(array[place])


def _on_cpu(array: jax.Array) -> bool:
    return all(device.platform == "cpu" for device in array.sharding.device_set)


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
