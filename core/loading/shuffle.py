"""The order of windows: pseudo-random permutations that can be computed at single positions.

A permutation of this kind needs no list of all windows in memory.
"""

from math import isqrt

import numpy as np

MASK = 2**64 - 1
ROUNDS = 8  # rounds of the Feistel network


def _uint64(values: int | list[int]) -> np.ndarray:
    """Return an array, even for one number: numpy is faster with an array than with an int."""
    return np.array(values, np.uint64)


ROUND_NUMBERS = _uint64([number << 48 for number in range(ROUNDS)])
# the constants of SplitMix64
INCREMENT, *FACTORS = map(_uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
SHIFTS = [_uint64(bits) for bits in (30, 27, 31)]


def windows_at(positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the windows (n) at positions (n) of an endless stream of shuffled epochs.

    count: number of windows; each epoch has every window once.

    The result is a pure function of its arguments, so a run can resume at any position without
    drawing earlier windows again.
    """
    epochs, offsets = np.divmod(positions, count)
    return permute(offsets, count, seed, epochs)


def permute(indices: np.ndarray, count: int, seed: int, epochs: np.ndarray) -> np.ndarray:
    """Map each index (n) by a pseudo-random permutation of the numbers 0 to count - 1.

    epochs: (n), the epoch of each index; every epoch has its own permutation.

    Every index takes constant time and memory. The numbers are places of an a x b grid, which may
    have more than `count` places. A Feistel network permutes the places, as pairs (left, right). If
    the result is `count` or more, it is permuted again, until it is less than `count`. These are
    methods 2 and 3 of Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002).
    """
    epoch_keys = _mix(_mix(_uint64([seed & MASK])) ^ epochs.astype(np.uint64))
    keys = epoch_keys + ROUND_NUMBERS[:, None]  # (ROUNDS n)
    height = isqrt(count - 1) + 1
    a, b = _uint64(height), _uint64(-(-count // height))
    permuted = _feistel(indices.astype(np.uint64), keys, a, b)
    while (outside := permuted >= _uint64(count)).any():
        permuted[outside] = _feistel(permuted[outside], keys[:, outside], a, b)
    return permuted.astype(np.int64)


def _feistel(indices: np.ndarray, keys: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Permute the numbers (n) of an a x b grid by a Feistel network with keys (ROUNDS n)."""
    right, left = np.divmod(indices, a)
    for even, odd in zip(keys[::2], keys[1::2], strict=True):
        left = (left + _mix(even + right) % a) % a
        right = (right + _mix(odd + left) % b) % b
    permuted: np.ndarray = right * a + left
    return permuted


def _mix(x: np.ndarray) -> np.ndarray:
    """Mix the bits of x (n) uint64: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = x + INCREMENT  # all arithmetic is modulo 2^64
    x = (x ^ (x >> SHIFTS[0])) * FACTORS[0]
    x = (x ^ (x >> SHIFTS[1])) * FACTORS[1]
    mixed: np.ndarray = x ^ (x >> SHIFTS[2])
    return mixed
