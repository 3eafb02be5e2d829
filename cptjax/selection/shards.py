"""Vectors in files of a few thousand rows, each written whole: work that is killed goes on behind the last file.

Of several processes the first writes, and all read what it wrote.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import is_local, read_json, whole_file, write_file
from cptjax.sharding.processes import first_then_others, is_first, number_of_first

MANIFEST = "vectors.json"
DTYPES = ("float16", "float32")


class Shards:
    """The vectors of a folder as one array [units, dim], which is read where it is asked for.

    It takes what algorithms here ask of points: a slice of rows, or an array of their indices.
    """

    def __init__(self, folder: epath.Path):
        """Opens what `write_shards` has finished.

        Raises:
            CptjaxError: a file is missing or damaged.
        """
        manifest = read_json(folder / MANIFEST)
        self._rows, self.shape = manifest["rows"], (manifest["units"], manifest["dim"])
        self.dtype = np.dtype(manifest["dtype"])
        self._parts = [_open(folder / _name(n)) for n in range(-(-self.shape[0] // self._rows))]
        if (found := sum(map(len, self._parts))) != len(self):
            raise CptjaxError(f"{folder} holds {found:,} vectors of {len(self):,}.\n  Remove it, to make them again.")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        if isinstance(wanted, slice):
            wanted = np.arange(*wanted.indices(len(self)))
        wanted = np.asarray(wanted)
        wanted = np.flatnonzero(wanted) if wanted.dtype == bool else wanted
        found = np.empty((len(wanted), self.shape[1]), self.dtype)
        shard, row = np.divmod(wanted, self._rows)
        for n in np.unique(shard).tolist():
            here = shard == n
            found[here] = self._parts[n][row[here]]
        return found


def write_shards(
    folder: epath.Path,
    units: int,
    rows: int,
    made_of: Mapping[str, Any],
    make: Callable[[int, int], np.ndarray],
    dtype: str = "float16",
    watch: Callable = lambda items, total, what: items,
    together: bool = False,
) -> Shards:
    """The vectors of `units` units, `rows` to a file; files that are there are not made again.

    Args:
        made_of: what the vectors depend on; a folder with others is refused.
        make: (first unit, one past the last) -> float [units of the shard, dim].
        dtype: of the files.
        together: of several processes each calls `make`, which computes on the devices of all; otherwise the first alone.

    Raises:
        ConfigurationError: the folder holds other vectors; an unknown dtype.
        CptjaxError: a vector is not finite in this dtype.
    """
    if dtype not in DTYPES:
        raise ConfigurationError(f"embeddings are kept as {dtype!r}; it is one of {', '.join(DTYPES)}.")
    beginning = json.loads(json.dumps({"made_of": made_of, "units": units, "rows": rows, "dtype": dtype}))
    first_then_others(lambda: _begin(folder, beginning))

    def write_all() -> None:
        dim, firsts = 0, range(0, units, rows)
        for n, first in enumerate(watch(firsts, len(firsts), "embedding, shards")):
            path = folder / _name(n)
            if not (number_of_first(path.exists()) if together else path.exists()):
                made = make(first, min(first + rows, units))
                with np.errstate(over="ignore"):
                    kept = np.asarray(made).astype(dtype)
                _refuse_infinite(made, kept, first, dtype)
                if is_first():
                    with whole_file(path) as stream:
                        np.save(stream, kept, allow_pickle=False)
                dim = kept.shape[1]
            elif is_first():
                dim = _open(path).shape[1]
        if is_first():
            write_file(folder / MANIFEST, json.dumps({**beginning, "dim": dim}, indent=1) + "\n")

    if not number_of_first((folder / MANIFEST).exists()):
        if together:
            write_all()
        else:
            first_then_others(lambda: write_all() if is_first() else None)
    return first_then_others(lambda: Shards(folder))


def _begin(folder: epath.Path, beginning: Mapping[str, Any]) -> None:
    """Says in the folder what is made there, or refuses it where something else is."""
    folder.mkdir(parents=True, exist_ok=True)
    if (begun := folder / "begun.json").exists():
        _refuse_others(read_json(begun), beginning, folder)
    elif is_first():
        write_file(begun, json.dumps(beginning, indent=1) + "\n")


def _name(number: int) -> str:
    return f"{number:05d}.npy"


def _open(path: epath.Path) -> np.ndarray:
    try:
        if is_local(path):
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with path.open("rb") as stream:
            return np.load(stream, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CptjaxError(f"{path} is missing or damaged ({error}).\n  Remove it, to have it made again.") from error


def _refuse_others(before: Mapping[str, Any], now: Mapping[str, Any], folder: epath.Path) -> None:
    names = [name for name in now if before.get(name) != now[name]]
    if names:
        theirs, ours = before.get("made_of", {}), now["made_of"]
        inner = [
            f"{name} ({theirs.get(name)!r}, now {ours[name]!r})" for name in ours if theirs.get(name) != ours[name]
        ]
        raise ConfigurationError(
            f"{folder} holds embeddings of something else: other {', '.join(inner or names)}.\n"
            "  Name another OUTPUT_DIR, or remove that folder."
        )


def _refuse_infinite(made: np.ndarray, kept: np.ndarray, first: int, dtype: str) -> None:
    bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
    if len(bad):
        largest = float(np.abs(np.asarray(made, np.float64)[bad[0]]).max())
        raise CptjaxError(
            f"the embedding of unit {first + int(bad[0]):,} (counted from 0) does not fit {dtype}: its largest number is "
            f"{largest:.3g}.\n  Take another LAYER (the last one is normalised), or keep float32 (Embedder.dtype)."
        )
