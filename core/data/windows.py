"""History windows: which frames a sample covers, and in which order samples come."""

from collections.abc import Sequence
from math import isqrt

import numpy as np

from core.data.store import EpisodeStore
from core.errors import DataError

ROUNDS = 8  # of the Feistel network
MASK = 2**64 - 1


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
        self._ends = np.cumsum(-(-store.length[self.episodes] // stride))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """Return the episode of window `index` and the frame at which it starts."""
        chosen = int(np.searchsorted(self._ends, index, "right"))
        before = int(self._ends[chosen - 1]) if chosen else 0
        return int(self.episodes[chosen]), (index - before) * self.stride


def window_at(position: int, count: int, seed: int) -> int:
    """Return which of `count` windows comes at `position` of an endless stream of shuffled epochs.

    Every epoch shows each window once. A pure function, so that resuming at any position costs nothing.
    """
    return shuffled(position % count, count, seed, position // count)


def shuffled(index: int, count: int, seed: int, epoch: int) -> int:
    """Return where a pseudo-random permutation of 0..count-1 sends `index`, in constant time and memory.

    A Feistel network over the pairs (left, right) of an a x b grid that holds the numbers, walked until it lands below
    `count`: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002), methods 2 and 3.
    """
    a = isqrt(count - 1) + 1
    b = -(-count // a)
    key = _mix(_mix(seed & MASK) ^ epoch)
    while True:
        right, left = divmod(index, a)
        for turn in range(0, ROUNDS, 2):
            left = (left + _mix(key + (turn << 48) + right)) % a
            right = (right + _mix(key + (turn + 1 << 48) + left)) % b
        index = right * a + left
        if index < count:
            return index


def _mix(x: int) -> int:
    """Return a well-mixed 64-bit function of x: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


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
