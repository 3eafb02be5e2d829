"""Tensors written in the safetensors format: the one that is being written in memory, and the next.

A local file is written at several places at once: its system copies what one thread gives it while others transpose, cast and
check. Elsewhere (gs://) files are written from their beginning to their end.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from cptjax.checkpoints.ahead import one_ahead
from cptjax.checkpoints.placed_file import Memory, PlacedFile
from cptjax.checkpoints.safetensors import CODES, TensorSpec
from cptjax.checkpoints.tiles import in_order, pieces
from cptjax.errors import CptjaxError

_THREADS = min(4, os.cpu_count() or 1)  # a system lets one at a time into a file: more would wait for it


def write_tensors(
    folder: epath.PathLike,
    specs: Mapping[str, TensorSpec],
    tensors: Iterable[np.ndarray],
    shard_bytes: int,
    only_finite: bool = False,
) -> list[str]:
    """Writes `tensors` (in the order of `specs`, at most two in memory) as a checkpoint's files; returns their names.

    One file `model.safetensors`, or, above `shard_bytes`, numbered shards with `model.safetensors.index.json`. Each
    file is written aside and renamed, the index last. Values are cast to the dtype of `specs`, a piece at a time.

    Args:
        tensors: each is still read from while the next one is made.

    Raises:
        CptjaxError: with `only_finite`, a value is not finite in that dtype.
    """
    folder = epath.Path(folder)
    shards = _shards(specs, shard_bytes)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    remaining = iter(tensors)
    for file_name, shard in zip(names, shards, strict=True):
        _write_file(folder / file_name, {name: specs[name] for name in shard}, remaining, only_finite)
    if len(shards) == 1:
        return names
    index = {
        "metadata": {"total_size": sum(spec.bytes for spec in specs.values())},
        "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard},
    }
    aside = folder / "model.safetensors.index.json.partial"
    aside.write_text(json.dumps(index, indent=2))
    aside.replace(folder / "model.safetensors.index.json")
    return [*names, "model.safetensors.index.json"]


def _shards(specs: Mapping[str, TensorSpec], shard_bytes: int) -> list[list[str]]:
    """Names cut, in order, into groups of at most `shard_bytes` (a larger tensor stands alone)."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, spec in specs.items():
        if shards[-1] and filled + spec.bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += spec.bytes
    return shards


def _write_file(
    path: epath.Path, specs: Mapping[str, TensorSpec], tensors: Iterator[np.ndarray], only_finite: bool
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, spec in specs.items():
        header[name] = {"dtype": CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [end, end + spec.bytes]}
        end += spec.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes, as readers that map the file like it
    aside = path.parent / f"{path.name}.partial"
    write = _write_at_once if _has_places(path) else _write_in_turn
    with aside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        write(file, specs, tensors, only_finite)
    aside.replace(path)


def _has_places(path: epath.Path) -> bool:
    """Whether a file there can be written at any place, by several threads."""
    return "://" not in os.fspath(path) and hasattr(os, "pwrite")


def _write_at_once(
    file: BinaryIO, specs: Mapping[str, TensorSpec], tensors: Iterator[np.ndarray], only_finite: bool
) -> None:
    """Writes the tensors behind what the file has, by several threads; the first thing that fails ends it."""
    file.flush()
    offset, memory = file.tell(), Memory()
    os.ftruncate(file.fileno(), offset + sum(spec.bytes for spec in specs.values()))
    threads, before = ThreadPoolExecutor(_THREADS), []
    with PlacedFile(file.name) as placed:

        def write(name: str, piece: np.ndarray, dtype: np.dtype, place: int) -> None:
            past_cache = placed.past_cache()
            here = memory.of(piece.size * dtype.itemsize, place)
            written = _values(name, piece, dtype, only_finite, here).reshape(-1).view(np.uint8)
            if past_cache and written.size and written.ctypes.data != here.ctypes.data:
                here[:] = written  # the tensor's own memory, which begins anywhere in a page
                written = here
            placed.write(written, place, past_cache)

        try:
            for name, spec in specs.items():
                under_way = []
                for piece in pieces(_announced(name, spec, tensors)):
                    under_way.append(threads.submit(write, name, piece, spec.dtype, offset))
                    offset += piece.size * spec.dtype.itemsize
                    del piece  # or the tensor would outlast its being written
                _finish(before)  # when this one is written its successor is made: two are held
                before = under_way
            _finish(before)
        finally:
            threads.shutdown(cancel_futures=True)


def _finish(under_way: list[Future]) -> None:
    """Waits for all, or raises what the first that fails has raised."""
    done = wait(under_way, return_when=FIRST_EXCEPTION).done
    for each in under_way:
        if each in done:
            each.result()


def _write_in_turn(
    file: BinaryIO, specs: Mapping[str, TensorSpec], tensors: Iterator[np.ndarray], only_finite: bool
) -> None:
    """Writes the tensors behind what the file has, one piece after another, the next one made meanwhile."""

    def values() -> Iterator[np.ndarray]:
        mine, others = Memory(), Memory()  # what is made is good until the next but one
        for name, spec in specs.items():
            for piece in pieces(_announced(name, spec, tensors)):
                yield _values(name, piece, spec.dtype, only_finite, mine.of(piece.size * spec.dtype.itemsize))
                mine, others = others, mine
                del piece

    for made in one_ahead(values()):
        file.write(made.reshape(-1).view(np.uint8).data)


def _announced(name: str, spec: TensorSpec, tensors: Iterator[np.ndarray]) -> np.ndarray:
    tensor = next(tensors)
    if tensor.shape != spec.shape:
        raise ValueError(f"tensor {name!r} came as {tensor.shape}, announced as {spec}")
    return tensor


def _values(name: str, piece: np.ndarray, dtype: np.dtype, only_finite: bool, memory: np.ndarray) -> np.ndarray:
    """The piece's values in the order and dtype of the file, in `memory` where they are not so already.

    Raises:
        CptjaxError: with `only_finite`, one of them is not finite.
    """
    values, whole = in_order(piece, dtype, memory)
    if only_finite and not whole:
        raise CptjaxError(f"tensor {name!r} is not finite in {dtype}; nothing was written.")
    return values
