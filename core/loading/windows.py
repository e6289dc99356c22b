"""Windows: which frames of an episode a sample covers."""

from collections.abc import Sequence

import numpy as np

from core.store.store import EpisodeStore


class Windows:
    """Windows of `window` frames (T); frame t's targets are the `horizon` actions (H) from t on.

    Windows start at every `stride`-th frame of the selected episodes, up to the last frame. Past an
    episode's end, the last frame is repeated and the repeated actions are masked, as in RoboVLMs.

    reach: (T H), how many frames after the window's start each target action comes.
    """

    def __init__(
        self,
        store: EpisodeStore,
        episodes: Sequence[int] | np.ndarray,
        window: int,
        horizon: int,
        stride: int = 1,
    ) -> None:
        self.store = store
        self.episodes = np.asarray(episodes, np.int64)
        self.window = window
        self.horizon = horizon
        self.stride = stride
        self.reach = np.arange(window)[:, None] + np.arange(horizon)
        counts = -(-store.length[self.episodes] // stride)
        self._count = int(counts.sum())
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts

    def __len__(self) -> int:
        return self._count

    def locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the episodes (n) of windows (n), and the frames (n) at which the windows start."""
        rows = np.searchsorted(self._ends, indices, "right")  # indices into `episodes`
        return self.episodes[rows], (indices - self._begins[rows]) * self.stride
