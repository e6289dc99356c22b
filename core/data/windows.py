"""History windows: which frames a sample covers, and in which order samples come."""

from collections.abc import Sequence
from math import isqrt

import numpy as np

from core.data.store import EpisodeStore
from core.errors import DataError

MASK = 2**64 - 1
ROUNDS = 8  # of the Feistel network


def _uint64(values: int | list[int]) -> np.ndarray:
    """As an array: on small arrays, numpy takes half again as long with numbers of Python's."""
    return np.array(values, np.uint64)


TURNS = _uint64([turn << 48 for turn in range(ROUNDS)])
ADDED, *FACTORS = map(_uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))  # of SplitMix64
SHIFTS = [_uint64(bits) for bits in (30, 27, 31)]


class Windows:
    """Window i covers `window` frames (T) of one episode; the target of frame t is the actions t..t+horizon-1 (H).

    Windows start at every `stride`-th frame of the selected episodes, up to the last frame: what lies past an episode's
    end repeats the last frame and is masked (RoboVLMs does the same). Raises DataError if no episode is selected.
    """

    def __init__(
        self, store: EpisodeStore, episodes: Sequence[int] | np.ndarray, window: int, horizon: int, stride: int = 1
    ) -> None:
        self.store = store
        self.episodes = np.asarray(episodes, np.int64)
        self.window = window
        self.horizon = horizon
        self.stride = stride
        if len(self.episodes) == 0:
            raise DataError(f"{store.path}: no episodes are selected; import some, or hold out fewer")
        self.reach = np.arange(window)[:, None] + np.arange(horizon)  # (T H): how far each target lies behind the first
        counts = -(-store.length[self.episodes] // stride)
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return of windows (n) the episodes (n) and the frames (n) at which they start."""
        chosen = np.searchsorted(self._ends, indices, "right")
        return self.episodes[chosen], (indices - self._begins[chosen]) * self.stride


def windows_at(positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return which of `count` windows come at positions (n) of an endless stream of shuffled epochs.

    Every epoch shows each window once. A pure function, so that resuming at any position costs nothing.
    """
    epochs, turns = np.divmod(positions, count)
    return shuffled(turns, count, seed, epochs)


def shuffled(indices: np.ndarray, count: int, seed: int, epochs: np.ndarray) -> np.ndarray:
    """Return where pseudo-random permutations of 0..count-1, one for each epoch, send indices (n).

    In constant time and memory: a Feistel network over the pairs (left, right) of an a x b grid that holds the numbers,
    walked until it lands below `count`: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002),
    methods 2 and 3.
    """
    keys = _mix(_mix(_uint64([seed & MASK])) ^ epochs.astype(np.uint64)) + TURNS[:, None]  # (ROUNDS n)
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
    """Return a well-mixed function of x (n) uint64: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = x + ADDED  # all of it modulo 2^64
    x = (x ^ (x >> SHIFTS[0])) * FACTORS[0]
    x = (x ^ (x >> SHIFTS[1])) * FACTORS[1]
    mixed: np.ndarray = x ^ (x >> SHIFTS[2])
    return mixed


def split_by_task(store: EpisodeStore, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Split episodes into (training, validation): the last `held_out` of each task validate.

    Raises DataError if a task would have nothing left to train on.
    """
    names = np.array([store.task_name(episode) for episode in range(len(store))])
    validation = np.zeros(len(store), bool)
    for name in np.unique(names):
        of_task = np.flatnonzero(names == name)
        if len(of_task) <= held_out:
            raise DataError(
                f"{store.path}: task '{name}' has {len(of_task)} episodes, of which {held_out} are to be held out; "
                f"hold out fewer or import more"
            )
        validation[of_task[len(of_task) - held_out :]] = True
    return np.flatnonzero(~validation), np.flatnonzero(validation)
