"""A Hugging Face folder's weights, each put where it lives on a mesh: every process reads only its share."""

import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from cptjax.checkpoints.ahead import one_ahead
from cptjax.checkpoints.hugging_face import HuggingFaceFolder, check_tied_head
from cptjax.checkpoints.parts import aligned, of_one, parts_of, read_parts, shape_of, sharding_by_rows
from cptjax.models.config import DecoderConfig
from cptjax.models.families.family import Correspondence, correspondences, first_parts
from cptjax.models.model import Params, abstract_weights
from cptjax.sharding.mesh import in_host_memory
from cptjax.sharding.rules import sharding_of

_THREADS = 4  # that copy tensors within one process's memory, at most: a few saturate it


def load_parameters(folder: HuggingFaceFolder, mesh: Mesh, config: DecoderConfig | None = None) -> Params:
    """The folder's weights in float32, each where it lives on `mesh`.

    Args:
        config: the folder's own, which may have rows of padding; None: without.

    Raises:
        CptjaxError: a weight is not finite, or a tied checkpoint's own head differs from its embedding.
    """
    entries = correspondences(folder.family, folder.decoder_config)
    shapes = {name: spec.shape for name, spec in abstract_weights(config or folder.decoder_config).items()}
    places = {name: sharding_of(mesh, entry.spec.axes, shapes[name]) for name, entry in entries.items()}
    whole = {name: shapes[name][len(entry.spec.counts) :] for name, entry in entries.items()}  # of one layer and expert
    load = _where_they_stay if in_host_memory(mesh.devices.flat) else _through_devices
    return load(folder, entries, shapes, whole, places)


def _where_they_stay(
    folder: HuggingFaceFolder,
    entries: Mapping[str, Correspondence],
    shapes: Mapping[str, tuple[int, ...]],
    whole: Mapping[str, tuple[int, ...]],
    places: Mapping[str, NamedSharding],
) -> Params:
    """Into memory that the devices then take over as it is: CPU devices of one process. Each number is copied once."""
    parts, devices = {}, {}
    for name, entry in entries.items():
        parts[name], devices[name] = parts_of(of_one(places[name], len(entry.spec.counts)), whole[name])
    check_tied_head(folder, parts["embedding.table"])
    # Memory is taken when it is first written to.
    held = {
        name: [aligned((*shapes[name][: len(entry.spec.counts)], *shape_of(part, whole[name]))) for part in parts[name]]
        for name, entry in entries.items()
    }

    def read(tensor: tuple[str, Correspondence, int]) -> None:
        theirs, first, index = tensor
        place = first.place(index)
        wanted = {name: (entries[name], parts[name]) for name in first.together}
        read_parts(
            folder.tensors[theirs], theirs, wanted, {name: [part[place] for part in held[name]] for name in wanted}
        )

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        for _ in threads.map(read, first_parts(entries)):
            pass
    return {
        name: jax.make_array_from_single_device_arrays(
            shapes[name],
            places[name],
            [jax.device_put(held[name][n], device, may_alias=True) for device, n in devices[name].items()],
        )
        for name in entries
    }


def _through_devices(
    folder: HuggingFaceFolder,
    entries: Mapping[str, Correspondence],
    shapes: Mapping[str, tuple[int, ...]],
    whole: Mapping[str, tuple[int, ...]],
    places: Mapping[str, NamedSharding],
) -> Params:
    """One of the files' tensors (of a layer, of an expert) at a time, and the next one while the devices take it.

    A stack is filled on the devices.
    """
    as_read = {name: sharding_by_rows(entry, places[name], whole[name]) for name, entry in entries.items()}
    parts, devices = {}, {}
    for name in entries:
        parts[name], devices[name] = parts_of(as_read[name], whole[name])
    check_tied_head(folder, parts["embedding.table"])

    def read(tensor: tuple[str, Correspondence, int]) -> tuple[tuple[int, ...], dict[str, list[np.ndarray]]]:
        theirs, first, index = tensor
        wanted = {name: (entries[name], parts[name]) for name in first.together}
        found = {name: [aligned(shape_of(part, whole[name])) for part in parts[name]] for name in wanted}
        read_parts(folder.tensors[theirs], theirs, wanted, found)
        return first.place(index), found

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
