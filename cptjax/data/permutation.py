"""A pseudo-random order of n rows that is computed, not stored: a keyed Feistel network with cycle walking.

A balanced Feistel network permutes the 2**(2b) numbers of 2b bits whatever its round function is (Luby and Rackoff
1988); walking until the value falls below n restricts it to 0 .. n - 1 (Black and Rogaway 2002, section 3). 2**(2b) <
4n, so a value takes fewer than four rounds of walking on average.
"""

import hashlib

import numpy as np

_ROUNDS = 8


def permutation_key(seed: int, source: str, epoch: int) -> bytes:
    """The key of one source's order in one epoch."""
    return hashlib.blake2b(f"{seed}/{epoch}/{source}".encode(), digest_size=8 * _ROUNDS).digest()


def permute(key: bytes, n: int, indices: np.ndarray) -> np.ndarray:
    """Where the permutation of `0 .. n - 1` under `key` sends `indices` (int64, any shape, each in range)."""
    indices = np.asarray(indices, np.int64)
    if indices.size and not 0 <= indices.min() <= indices.max() < n:
        raise IndexError(f"indices must lie in 0 .. {n - 1}")
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.frombuffer(key, "<u8")
    found = _feistel(keys, half, mask, indices.ravel().astype(np.uint64))
    outside = np.flatnonzero(found >= n)
    while outside.size:
        found[outside] = _feistel(keys, half, mask, found[outside])
        outside = outside[found[outside] >= n]
    return found.astype(np.int64).reshape(indices.shape)


def _feistel(keys: np.ndarray, half: np.uint64, mask: np.uint64, x: np.ndarray) -> np.ndarray:
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
