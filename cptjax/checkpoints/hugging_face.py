"""Hugging Face folders, opened and checked: safetensors only, and none of their values read before they are wanted."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from cptjax.checkpoints.parts import Index
from cptjax.checkpoints.safetensors import CODES, SafetensorsFile
from cptjax.checkpoints.tiles import same_bits
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Family, correspondences
from cptjax.models.families.registry import family_of

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WEIGHT_DTYPES = ("F32", "BF16", "F16", "F64")
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


def tokenizer_files(path: epath.PathLike) -> list[epath.Path]:
    """The files of a folder that make up its tokenizer (and how to generate with it).

    Of a tokenizer given as a file: that file, and what stands beside it and says how it is used.
    """
    path = epath.Path(path)
    if not path.is_dir():
        return [path, *(path.parent / name for name in TOKENIZER_SETTINGS if (path.parent / name).exists())]
    return [file for pattern in TOKENIZER_FILES for file in sorted(path.glob(pattern))]
