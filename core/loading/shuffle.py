"""In which order windows come: pseudo-random permutations without lists, computed for a batch at a
time.
"""

from math import isqrt

import numpy as np

MASK = 2**64 - 1
ROUNDS = 8  # of the Feistel network


def _uint64(values: int | list[int]) -> np.ndarray:
    """As an array: on small arrays, numpy takes half again as long with numbers of Python's."""
    return np.array(values, np.uint64)


TURNS = _uint64([turn << 48 for turn in range(ROUNDS)])
ADDED, *FACTORS = map(
    _uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)  # of SplitMix64
SHIFTS = [_uint64(bits) for bits in (30, 27, 31)]


def windows_at(positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return which of `count` windows come at positions (n) of an endless stream of shuffled
    epochs.

    Every epoch shows each window once. A pure function, so that resuming at any position costs
    nothing.
    """
    epochs, turns = np.divmod(positions, count)
    return shuffled(turns, count, seed, epochs)


def shuffled(indices: np.ndarray, count: int, seed: int, epochs: np.ndarray) -> np.ndarray:
    """Return where pseudo-random permutations of 0..count-1, one for each epoch, send indices (n).

    Each in constant time and memory: a Feistel network over the pairs (left, right) of an a x b
    grid that holds the numbers, walked until it lands below `count`: Black and Rogaway, "Ciphers
    with Arbitrary Finite Domains"
    (CT-RSA 2002), methods 2 and 3.
    """
    keys = (
        _mix(_mix(_uint64([seed & MASK])) ^ epochs.astype(np.uint64)) + TURNS[:, None]
    )  # (ROUNDS n)
    grid = _uint64(a := isqrt(count - 1) + 1), _uint64(-(-count // a))
    sent = _permuted(indices.astype(np.uint64), keys, *grid)
    while (outside := sent >= _uint64(count)).any():
        sent[outside] = _permuted(sent[outside], keys[:, outside], *grid)
    return sent.astype(np.int64)


def _permuted(indices: np.ndarray, keys: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Send numbers (n) of the a x b grid once through the network, with keys (ROUNDS n)."""
    right, left = np.divmod(indices, a)
    for even, odd in zip(keys[::2], keys[1::2], strict=True):
        left = (left + _mix(even + right) % a) % a
        right = (right + _mix(odd + left) % b) % b
    permuted: np.ndarray = right * a + left
    return permuted


def _mix(x: np.ndarray) -> np.ndarray:
    """Return a well-mixed function of x (n) uint64: the finaliser of SplitMix64 (Steele, Lea and
    Flood 2014).
    """
    x = x + ADDED  # all of it modulo 2^64
    x = (x ^ (x >> SHIFTS[0])) * FACTORS[0]
    x = (x ^ (x >> SHIFTS[1])) * FACTORS[1]
    mixed: np.ndarray = x ^ (x >> SHIFTS[2])
    return mixed
