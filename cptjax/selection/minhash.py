"""Near-duplicates by MinHash and banding (Broder 1997; Indyk and Motwani 1998): candidates by signature, each verified.

Signatures are rensa's, or datasketch's where that is not installed; what they are of, and all that follows, is ours. A pair at the
threshold is missed with the probability that `banding` was told, more similar ones with less; of what is found every edge has the
Jaccard similarity. The probability does not hold of a bucket of more than 100 members, as a template fills it: there each is
compared with the 8 that follow it alone, and what is missed is not bounded. near_duplicates.py misses none, in one process; this
goes on many machines (minhash_on_beam.py).
"""

import importlib.util
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt32, UInt64

from cptjax.errors import ConfigurationError
from cptjax.selection.shingles import Shingles, jaccard

_LARGEST = 100  # members of a bucket that are compared one with another; of more, each with those next to it
_NEXT = 8


def banding(threshold: float, permutations: int, miss: float = 1e-4) -> tuple[int, int]:
    """(bands, rows): the most rows for which a pair at the threshold is missed with at most this probability.

    A pair of similarity s shares a band with probability 1 - (1 - s**rows)**bands.

    Raises:
        ConfigurationError: not even one row is enough.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if bands * math.log1p(-min(threshold**rows, 1 - 1e-15)) <= math.log(miss):
            return bands, rows
    raise ConfigurationError(
        f"{permutations} permutations find no pair of similarity {threshold:g} but with more than {miss:g} missed: take more."
    )


def signer() -> str:
    """The library whose signatures `signatures` gives; two give different ones of one set."""
    return "rensa" if importlib.util.find_spec("rensa") else "datasketch"


def signatures(sets: Sequence[Shingles], permutations: int, seed: int = 1) -> UInt32[np.ndarray, "sets permutations"]:
    """The MinHash signature of each set; that of an empty one is all ones."""
    if signer() == "datasketch":
        return _by_datasketch(sets, permutations, seed)
    from rensa import RMinHash

    ends = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
    flat = np.concatenate([*sets, np.zeros(0, np.uint64)]).astype(np.uint64)
    found = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends, permutations, seed)
    return np.array(found.to_rows(), np.uint32).reshape(len(sets), permutations)


def _by_datasketch(sets: Sequence[Shingles], permutations: int, seed: int) -> np.ndarray:
    from datasketch import MinHash

    found = np.full((len(sets), permutations), np.iinfo(np.uint32).max, np.uint32)
    empty = MinHash(permutations, seed=seed, hashfunc=int)
    for i, each in enumerate(sets):
        if len(each):
            one = empty.copy()
            one.update_batch((each & np.uint64(0xFFFFFFFF)).tolist())
            found[i] = one.hashvalues.astype(np.uint32)
    return found


def band_keys(
    signed: UInt32[np.ndarray, "sets permutations"], bands: int, rows: int
) -> UInt64[np.ndarray, "sets bands"]:
    """One hash for each band of each signature; those of two bands differ."""
    parts = signed[:, : bands * rows].reshape(len(signed), bands, rows).astype(np.uint64)
    keys = np.broadcast_to(np.arange(bands, dtype=np.uint64), parts.shape[:2]).copy()
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64
        for row in range(rows):
            keys = (keys ^ parts[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
    return keys


def bucket_pairs(members: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The pairs of a bucket that are candidates, each i < j: all; of a large one each with a few that follow it.

    Texts of a large bucket are made from one template, as a rule: chains join them.
    """
    ordered = sorted(members)
    reach = len(ordered) if len(ordered) <= _LARGEST else _NEXT
    for place, one in enumerate(ordered):
        for other in ordered[place + 1 : place + 1 + reach]:
            yield one, other


def candidate_pairs(keys: UInt64[np.ndarray, "sets bands"], held: np.ndarray) -> Int[np.ndarray, "pairs 2"]:
    """Pairs i < j that share a band, each once; only of sets that are held (bool)."""
    pairs: set[tuple[int, int]] = set()
    for band in keys.T:
        order = np.argsort(band, kind="stable")
        order = order[held[order]]
        bounds = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, bounds) if len(order) else []:
            if len(bucket) > 1:
                pairs.update(bucket_pairs(bucket.tolist()))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def components(count: int, edges: Sequence[tuple[int, int]] | np.ndarray) -> Int[np.ndarray, " count"]:
    """For each of so many things the smallest index that edges connect it with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.asarray(edges, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges), np.int8), edges.T), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    smallest = np.full(label.max(initial=-1) + 1, count)
    np.minimum.at(smallest, label, np.arange(count))
    return smallest[label]


def minhash_groups(
    sets: Sequence[Shingles], threshold: float, permutations: int = 256, miss: float = 1e-4, seed: int = 1
) -> Int[np.ndarray, " sets"]:
    """As `near_duplicates.groups`, by MinHash: for each set the smallest index in its component of verified pairs.

    Raises:
        ConfigurationError: see `banding`.
    """
    bands, rows = banding(threshold, permutations, miss)
    held = np.array([len(each) > 0 for each in sets], bool)
    pairs = candidate_pairs(band_keys(signatures(sets, permutations, seed), bands, rows), held)
    edges = [(i, j) for i, j in pairs.tolist() if jaccard(sets[i], sets[j]) >= threshold]
    return components(len(sets), edges)
