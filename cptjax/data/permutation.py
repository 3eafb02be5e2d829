"""A pseudo-random order of n rows that is computed, not stored: a keyed Feistel network with cycle walking.

A balanced Feistel network permutes the 2**(2b) numbers of 2b bits whatever its round function is (Luby and Rackoff
1988); walking until the value falls below n restricts it to 0 .. n - 1 (Black and Rogaway 2002, section 3). 2**(2b) <
4n, so a value takes fewer than four rounds of walking on average.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

_ROUNDS = 8


def permutation_key(seed: int, source: str, epoch: int) -> bytes:
    """The key of one source's order in one epoch."""
    return hashlib.blake2b(f"{seed}/{epoch}/{source}".encode(), digest_size=8 * _ROUNDS).digest()


def permute(key: bytes, n: int, indices: np.ndarray) -> np.ndarray:
    """Where the permutation of `0 .. n - 1` under `key` sends `indices` (int64, any shape, each in range)."""
    indices = np.asarray(indices, np.int64)
    return permute_each([key], [n], np.zeros(indices.size, np.int64), indices.ravel()).reshape(indices.shape)


def permute_each(keys: Sequence[bytes], sizes: Sequence[int], which: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """`permute` of each index under its own permutation, all in one go.

    Args:
        keys, sizes: of the permutations.
        which, indices: int64 [indices], which permutation, and the index in it.
    """
    n = np.array(sizes, np.uint64)
    if indices.size and not (indices.min() >= 0 and (indices.astype(np.uint64) < n[which]).all()):
        outside = (indices < 0) | (indices.astype(np.uint64) >= n[which])
        raise IndexError(f"indices must lie in 0 .. {int(n[which[outside][0]]) - 1}")
    half = np.array([max(1, ((size - 1).bit_length() + 1) // 2) for size in sizes], np.uint64)
    rounds = np.frombuffer(b"".join(keys), "<u8").reshape(-1, _ROUNDS).T
    found = indices.astype(np.uint64)
    outside = np.arange(len(found))
    while outside.size:
        # One permutation is applied as scalars: no copy of its key for each index.
        own = which[outside] if len(keys) > 1 else slice(None)
        found[outside] = _feistel(rounds[:, own], half[own], found[outside])
        outside = outside[found[outside] >= n[which[outside]]]
    return found.astype(np.int64)


def _feistel(keys: np.ndarray, half: np.ndarray, x: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
