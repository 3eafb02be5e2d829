"""SemDeDup's memory and time as its largest cluster grows: the same points, of which ever more are in one cluster.

Each size in a process of its own, which allocates what it finds of each point and the blocks it compares; the points are a mapped
file. What the process had allocated before it began is subtracted.
"""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from cptjax.benchmarks.memory import allocated, run_and_watch
from cptjax.configuration.values import whole_number

_EVERY = 0.002  # seconds between two looks
# For glibc: what is freed goes back at once. It would keep some for each thread, by chance more the longer a process lives.
_GIVE_BACK = ("MALLOC_ARENA_MAX=1", "MALLOC_MMAP_THRESHOLD_=65536", "MALLOC_TRIM_THRESHOLD_=65536")


def semdedup_memory(
    points: float = 65_536, dim: float = 128, largest: tuple[float, ...] = (2048, 8192, 32_768, 65_536)
) -> dict[str, Any]:
    """Measures `semantic_duplicates` over `points` points, of which so many are in one cluster, the rest in clusters of 64.

    Returns:
        Of each size MB that were allocated at most, beyond what the process had when it began, and seconds; `memory_ratio`: the
        most of all sizes over the least. Memory is None where the system does not tell.
    """
    points, dim = whole_number(points, "POINTS", 64), whole_number(dim, "DIM", 1)
    sizes = [whole_number(size, "LARGEST", 1) for size in largest]
    found: dict[str, Any] = {"points": points, "dim": dim}
    memory = []
    with tempfile.TemporaryDirectory(prefix="cptjax-benchmark-") as folder:
        vectors = np.random.default_rng(0).standard_normal((points, dim), np.float32).astype(np.float16)
        np.save(Path(folder) / "points.npy", vectors)
        for size in sizes:
            given = {"file": str(Path(folder) / "points.npy"), "largest": min(size, points)}
            printed, _ = run_and_watch(["env", *_GIVE_BACK, sys.executable, "-m", __name__, json.dumps(given)])
            one = json.loads(printed.splitlines()[-1])
            found[f"mb_largest_cluster_{size}"] = one["mb"]
            found[f"seconds_largest_cluster_{size}"] = one["seconds"]
            memory.append(one["mb"])
    found["memory_ratio"] = max(memory) / min(memory) if None not in memory else None
    return found


def one_size(file: str, largest: int, tile: int = 64) -> dict[str, float | None]:
    """The memory (MB, None where the system does not tell) and the seconds of one search."""
    from cptjax.selection.semantic_duplicates import cluster_order, semantic_duplicates

    vectors = np.load(file, mmap_mode="r")
    labels = np.maximum(np.arange(len(vectors)) - largest, -1) // tile + 1
    order = cluster_order(labels, np.zeros(len(labels), np.float32))
    small = np.arange(2 * tile)
    semantic_duplicates(vectors[small], np.zeros(len(small), np.int64), small)  # what JAX allocates when it starts
    before = allocated()
    most, ended = [before], threading.Event()

    def look() -> None:
        while not ended.wait(_EVERY):
            most[0] = max(most[0], allocated())

    watching = threading.Thread(target=look, daemon=True)
    if before is not None:
        watching.start()
    begin = time.perf_counter()
    semantic_duplicates(vectors, labels, order)
    seconds = time.perf_counter() - begin
    ended.set()
    return {"mb": None if before is None else (most[0] - before) / 1e6, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(one_size(**json.loads(sys.argv[1]))))
